// A page that uses all of sampjs; the tests call the methods of `client`.
"use strict";

globalThis.client = {
    connection: null,
    closed: false,       // whether sampjs has closed the connection
    received: [],        // all callbacks: {kind, sender, name, content}
    waiting: [],         // [{condition, resolve}]: waits for callbacks
    heldReplies: null,   // replies that are kept back, if any
    workTime: 0,         // milliseconds of work for each message

    // Registers at the hub. The promise waits for the user's consent.
    register(name, subscriptions) {
        return new Promise((resolve, reject) => {
            samp.register(name, (connection) => {
                this.connection = connection;
                this.closed = false;
                connection.onclose = () => { this.closed = true; this.checkWaiting(); };
                this.declare(name, subscriptions, resolve, reject);
            }, (error) => reject(new Error(error.toString())));
        });
    },

    declare(name, subscriptions, resolve, reject) {
        const tracker = new samp.ClientTracker();
        tracker.onchange = () => { this.showClients(tracker); this.checkWaiting(); };
        // sampjs looks a message's handler up by its full MType, so a wildcard needs a handler that has any name.
        tracker.callHandler = new Proxy(tracker.callHandler, {
            has: () => true,
            get: (own, mtype) => (sender, message, isCall) => {
                own[mtype]?.(sender, message, isCall);
                return this.receive(isCall ? "call" : "notification", sender, mtype, message["samp.params"]);
            },
        });
        tracker.replyHandler = new Proxy({}, {
            has: () => true,
            get: () => (sender, tag, response) => this.receive("response", sender, tag, response),
        });
        tracker.init(this.connection);
        this.connection.declareMetadata([{ "samp.name": name, "samp.description.text": "a page" }]);
        this.connection.setCallable(tracker, () => {
            const all = { "samp.hub.event.*": {}, "samp.hub.disconnect": {}, ...subscriptions };
            this.connection.declareSubscriptions([all], () => resolve(this.connection.regInfo["samp.self-id"]), reject);
        });
    },

    // Keeps back the replies of sampjs from now on.
    holdReplies() {
        this.heldReplies = [];
        this.connection.reply = (args) => this.heldReplies.push(args);
    },

    // Sends the replies that were kept back, and waits until the hub has responded; after a fault sampjs closes.
    async releaseReplies() {
        const connection = this.connection;
        delete connection.reply;
        for (const args of this.heldReplies) {
            await new Promise((resolve) => {
                connection.reply(args, resolve, () => { connection.close(); resolve(); });
            });
        }
    },

    workOnMessages(milliseconds) {
        this.workTime = milliseconds;
    },

    // Whether this is still the page that registered, and not a reloaded one.
    async isConnected() {
        return this.connection !== null && !this.closed;
    },

    // Opens a dialog, which blocks the page, after this method has returned.
    async openDialog() {
        setTimeout(() => alert("A dialog"), 0);
    },

    receive(kind, sender, name, content) {
        const end = performance.now() + this.workTime;
        while (performance.now() < end) {
            // busy, like a page that reads a large table
        }
        this.received.push({ kind, sender, name, content });
        document.getElementById("count").textContent = String(this.received.length);
        this.checkWaiting();
        return { echo: content };
    },

    checkWaiting() {
        this.waiting = this.waiting.filter(({ condition, resolve }) => {
            const result = condition();
            if (result) {
                resolve(result);
            }
            return !result;
        });
    },

    until(condition) {
        return new Promise((resolve) => {
            this.waiting.push({ condition, resolve });
            this.checkWaiting();
        });
    },

    // Waits for `count` messages or responses of that name, and returns them.
    wait(name, count) {
        return this.until(() => {
            const found = this.received.filter((one) => one.name === name);
            return found.length >= count ? found : null;
        });
    },

    // The MTypes and tags of all callbacks.
    async names() {
        return this.received.map((one) => one.name);
    },

    // Waits until the page lists a client of this name.
    waitListed(name) {
        return this.until(() => document.getElementById("clients").textContent.includes(name));
    },

    waitClosed() {
        return this.until(() => this.closed);
    },

    // Calls any method of the hub: client.callHub("notify", recipient, message)
    callHub(method, ...args) {
        return new Promise((resolve, reject) => {
            this.connection[method](args, resolve, (error) => reject(new Error(error.toString())));
        });
    },

    // The URL for uploads of this page.
    async uploadUrl() {
        return this.connection.regInfo["x-samp.upload"];
    },

    // Uploads `total` bytes in chunks of 1 MiB, four at a time. Each byte is the number of its chunk. Returns the URL.
    async upload(url, total) {
        const size = 2 ** 20;
        let next = 0, result = null;
        const work = async () => {
            for (let first = next; first < total; first = next) {
                next += size;
                const end = Math.min(first + size, total);
                const headers = { "Content-Range": `bytes ${first}-${end - 1}/${total}` };
                const body = new Uint8Array(end - first).fill(first / size);
                const response = await fetch(url, { method: "PUT", headers, body });
                const state = await response.json();
                if (!response.ok) {
                    throw new Error(`${response.status} ${state.error}`);
                }
                result = state.url ?? result;
            }
        };
        await Promise.all([work(), work(), work(), work()]);
        return result;
    },

    // Reads a URL through the hub, and returns the number of bytes.
    async readThroughHub(url) {
        const response = await fetch(this.connection.translateUrl(url));
        let count = 0;
        for (const reader = response.body.getReader(); ;) {
            const { done, value } = await reader.read();
            if (done) {
                return count;
            }
            count += value.length;
        }
    },

    unregister() {
        this.connection.unregister();
    },

    ping() {
        return new Promise((resolve) => samp.ping(resolve));
    },

    // Reads a URL, through the hub if `translated`. The result contains a checksum of the bytes.
    async read(url, translated) {
        const response = await fetch(translated ? this.connection.translateUrl(url) : url);
        const bytes = await response.arrayBuffer();
        const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
        return {
            status: response.status,
            type: response.headers.get("Content-Type"),
            size: bytes.byteLength,
            sha256: Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join(""),
        };
    },

    showClients(tracker) {
        const rows = Object.keys(tracker.ids).sort().map((id) => {
            const row = document.createElement("tr");
            for (const text of [id, tracker.getName(id), tracker.metas[id]?.["samp.description.text"] ?? ""]) {
                row.appendChild(document.createElement("td")).textContent = text;
            }
            return row;
        });
        document.getElementById("clients").replaceChildren(...rows);
        document.getElementById("self").textContent = this.connection?.regInfo?.["samp.self-id"] ?? "not registered";
        document.getElementById("origin").textContent = location.origin;
    },
};

// With #upload=BYTES the page needs no driver, because a driver keeps the bodies of the page's requests in memory.
addEventListener("load", async () => {
    const total = Number(location.hash.replace("#upload=", ""));
    if (total) {
        const { client } = globalThis;
        await client.register("page", {});
        await client.callHub("notifyAll", { "samp.mtype": "coord.pointAt.sky", "samp.params": {} });
        const url = await client.upload(await client.uploadUrl() + "x/large.fits", total);
        await client.callHub("notifyAll", { "samp.mtype": "table.load.fits", "samp.params": { url } });
        const count = String(await client.readThroughHub(url));
        await client.callHub("notifyAll", { "samp.mtype": "table.load.votable", "samp.params": { count } });
    }
});
