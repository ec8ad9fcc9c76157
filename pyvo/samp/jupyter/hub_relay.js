// Licensed under a 3-clause BSD style license - see LICENSE.rst
//
// The script of the page: carries requests of the kernel to the SAMP hub on the computer of this browser.
//
// It calls only http://localhost:PORT of the hub, with headers that are fixed here. A message of the kernel has the body
// of a request, or names a file of the hub. The head of page_requests.py explains the messages.

const CHUNK = 1024 * 1024;
const CREDITS = 4; // parts of a file that may be on their way to the kernel
const STALE = 5000; // ms after which a request is not carried out
const HEALTH_CHECK = 20000; // ms between two checks that the hub is there while a request waits
const HEALTH_TIMEOUT = 10000;
const MAX_FAILURES = 3;
const KERNEL_TIMEOUT = 10000;
const PING = "<?xml version='1.0'?><methodCall><methodName>samp.webhub.ping</methodName><params></params></methodCall>";

// States of a kernel that no longer needs the responses.
const GONE = new Set(["restarting", "autorestarting", "terminating", "dead"]);

function randomId() {
    // not randomUUID, which pages without https do not have
    return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// The state of the permission for programs on this computer; "unknown" in browsers that do not ask, or do not tell.
async function permission() {
    for (const name of ["loopback-network", "local-network-access"]) {
        try {
            return (await navigator.permissions.query({ name })).state;
        } catch { /* this browser has another name for it, or none */ }
    }
    return "unknown";
}

const isLoopback = /^(localhost|127(\.\d+){3}|\[::1\])$/.test(location.hostname);

function baseUrl() {
    const config = document.getElementById("jupyter-config-data");
    if (!config) return "";
    try {
        return new URL(JSON.parse(config.textContent).baseUrl, location.origin).href;
    } catch {
        return "";
    }
}

class Relay {
    constructor(model) {
        this.model = model;
        this.id = randomId();
        this.port = model.get("_port");
        this.hub = `http://localhost:${this.port}`;
        this.serial = 0;
        this.running = new Map(); // requests in progress: their AbortControllers, by number
        this.credits = new Map(); // functions that wait for the kernel to have read, by number
        this.puts = new Map(); // requests with the parts of each file that is sent to the hub
        this.offset = Infinity; // the least difference between the clocks of page and kernel
        this.state = { page: "", state: "", path: "", resume: false };
        this.isKnown = false; // whether the kernel has sent the state
        this.view = "idle"; // idle, asking, claimed, ready, no hub, blocked, insecure, no kernel, stopped
        this.hasHub = null; // null until it is known
        this.failures = 0;
        this.transferred = "";
        this.listeners = new Set();
        this.onMessage = (content, buffers) => this.receive(content, buffers);
        this.isHidden = false;
        this.onHide = () => { this.send({ op: "bye" }); this.isHidden = true; };
        this.onShow = (event) => { this.isHidden = false; if (event.persisted) this.resume(); }; // by "back"
    }

    async start() {
        this.model.on("msg:custom", this.onMessage);
        addEventListener("pagehide", this.onHide);
        addEventListener("pageshow", this.onShow);
        this.timer = setInterval(() => this.state.page === this.id && this.checkHub(), HEALTH_CHECK);
        this.onStatus = (_kernel, status) => GONE.has(status) && this.stop();
        this.kernel?.statusChanged.connect(this.onStatus);
        if (!isSecureContext) this.view = "insecure";
        this.base = baseUrl();
        this.hasData = this.base ? await this.findData() : false;
        this.hello();
    }

    stop() {
        this.model.off("msg:custom", this.onMessage);
        removeEventListener("pagehide", this.onHide);
        removeEventListener("pageshow", this.onShow);
        this.kernel?.statusChanged.disconnect(this.onStatus);
        clearInterval(this.timer);
        for (const controller of this.running.values()) controller.abort();
        this.setView("stopped");
    }

    // Whether the Jupyter server offers files to hubs that accept none.
    async findData() {
        try {
            return (await fetch(`${this.base}pyvo-samp/data/`, { credentials: "omit" })).ok;
        } catch {
            return false;
        }
    }

    // Messages to and from the kernel

    // JupyterLab's connection to the kernel, which also has the control channel.
    get kernel() {
        const kernel = this.model.widget_manager?.kernel;
        return typeof kernel?.sendControlMessage === "function" ? kernel : null;
    }

    // Sends a message by the best path, and by all paths while it is not known.
    send(content, buffers = []) {
        const message = { ...content, page: this.id };
        const path = this.state.path;
        const byControl = this.kernel && (path === "" || path === "control");
        if (byControl) this.sendControl({ ...message, is_best: true }, buffers);
        if (!byControl || path === "") this.sendComm({ ...message, is_best: !byControl }, buffers);
    }

    sendComm(message, buffers) {
        this.model.send(message, undefined, buffers);
    }

    sendControl(message, buffers) {
        const kernel = this.kernel;
        const sent = kernel.sendControlMessage({
            header: {
                msg_id: randomId(), msg_type: "comm_msg", session: kernel.clientId, username: kernel.username,
                date: new Date().toISOString(), version: "5.4",
            },
            parent_header: {}, metadata: {}, channel: "control", buffers,
            content: { comm_id: this.model.get("_comm_id"), data: { method: "custom", content: message } },
        }, false, true);
        sent.done.catch(() => {}); // the kernel was restarted
    }

    async hello(claim = "") {
        this.serial += 1;
        const message = {
            op: "hello", serial: this.serial, claim, permission: await permission(), base: this.base,
            has_data: this.hasData, is_shared: location.pathname.includes("/user/"),
            hub: this.view === "blocked" ? "blocked" : { true: "ok", false: "none" }[this.hasHub] ?? "",
        };
        this.send(message);
    }

    receive(content, buffers) {
        if (content.op === "state") {
            this.state = content;
            this.onState();
        } else if (content.page === this.id && !this.isHidden) { // after "bye" no request is started
            const handle = { call: this.call, put: this.put, delete: this.delete, fetch: this.fetchFile }[content.op];
            if (handle) this.carryOut(content, (signal) => handle.call(this, content, buffers, signal));
            else if (content.op === "cancel") this.running.get(content.id)?.abort();
            else if (content.op === "credit") this.credits.get(content.id)?.();
            else if (content.op === "echo") this.sendAlive(content.echo);
        }
    }

    sendAlive(echo) {
        const ids = [...this.running.keys()];
        const message = { op: "alive", echo, ids, page: this.id };
        // By all paths: the kernel learns which of them work
        const byControl = this.kernel !== null;
        const isControlBest = byControl && (this.state.path === "" || this.state.path === "control");
        if (byControl) this.sendControl({ ...message, is_best: isControlBest }, []);
        if (this.state.path !== "control") this.sendComm({ ...message, is_best: !isControlBest }, []);
    }

    onState() {
        if (this.state.page === this.id) this.view = "ready";
        else if (this.state.page || this.view === "ready" || this.view === "no kernel") this.view = "idle";
        if (!this.isKnown && this.state.resume && this.view === "idle") this.resume();
        this.isKnown = true;
        this.changed();
    }

    // After a reload: connects without a click, unless the browser would ask.
    async resume() {
        const state = await permission();
        if (state === "granted" || state === "unknown" || isLoopback) this.connect("resume");
    }

    setView(view) {
        this.view = view;
        this.changed();
    }

    changed() {
        for (const listener of this.listeners) listener();
    }

    // Requests to the hub

    request(path, init = {}) {
        const url = new URL(path, this.hub);
        if (url.origin !== this.hub) throw new TypeError("only the hub is called");
        const options = { credentials: "omit", redirect: "error", cache: "no-store", ...init };
        try {
            return fetch(new Request(url, { ...options, targetAddressSpace: "loopback" }));
        } catch { // this browser has another name for that address space
            return fetch(url, options);
        }
    }

    postXml(body, signal) {
        return this.request("/", { method: "POST", body, signal, headers: { "Content-Type": "text/xml" } });
    }

    // Pings the hub; the browser may ask the user for permission now.
    async connect(claim) {
        this.setView("asking");
        try {
            const response = await this.postXml(PING);
            if (!(await response.text()).includes("methodResponse")) throw new TypeError("this is no hub");
            this.hasHub = true;
            this.view = "claimed";
            this.hello(claim);
            setTimeout(() => this.view === "claimed" && this.setView("no kernel"), KERNEL_TIMEOUT);
        } catch {
            this.hasHub = false;
            this.view = (await permission()) === "denied" ? "blocked" : "no hub";
            this.hello();
        }
        this.changed();
    }

    async carryOut(content, action) {
        const { id } = content;
        const delay = Date.now() - content.at;
        this.offset = Math.min(this.offset, delay);
        if (delay > this.offset + STALE) {
            this.send({ op: "failed", id, reason: "stale" });
            return;
        }
        const controller = new AbortController();
        this.running.set(id, controller);
        this.send({ op: "taken", id });
        try {
            await action(controller.signal);
        } catch (error) {
            this.send({ op: "failed", id, ...(await this.explain(error, controller.signal)) });
        } finally {
            this.running.delete(id);
            this.credits.delete(id);
        }
    }

    // Aborts all requests if the hub is gone, or does not respond to MAX_FAILURES checks; tells the kernel about changes.
    async checkHub() {
        const hadHub = this.hasHub;
        try {
            const signal = AbortSignal.timeout(HEALTH_TIMEOUT);
            // any response will do, even one that pages may not read; "no-cors" requires "follow"
            await this.request("/", { mode: "no-cors", redirect: "follow", signal });
            this.failures = 0;
        } catch (error) {
            this.failures = error.name === "TimeoutError" ? this.failures + 1 : MAX_FAILURES;
        }
        this.hasHub = this.failures < MAX_FAILURES;
        if (!this.hasHub) for (const controller of this.running.values()) controller.abort("no hub");
        if (this.hasHub !== hadHub) this.hello();
    }

    async explain(error, signal) {
        const text = String(error);
        if (signal.aborted && signal.reason !== "no hub") return { reason: "cancelled", text };
        if ((await permission()) === "denied") return { reason: "blocked", text };
        await this.checkHub();
        return { reason: this.hasHub ? "broken off" : "no hub", text };
    }

    async sendResponse(id, response) {
        const body = await response.arrayBuffer();
        this.send({ op: "response", id, status: response.status, reason: response.statusText }, [body]);
    }

    async call(content, buffers, signal) {
        await this.sendResponse(content.id, await this.postXml(buffers[0], signal));
    }

    upload({ token, file, name }, init) {
        if (!/^[\w-]{43}$/.test(token) || !/^[\w-]{1,64}$/.test(file)) throw new TypeError("this is no upload");
        return this.request(`/upload/${token}/${file}/${encodeURIComponent(name)}`, init);
    }

    // A part is never aborted: if the hub received it after the file was deleted, it would start the file again.
    async put(content, buffers) {
        const { id, file, first, size, total } = content;
        const headers = total > 0 ? { "Content-Range": `bytes ${first}-${first + size - 1}/${total}` } : {};
        const body = new Blob([buffers[0]]); // of a type that needs no header
        const request = this.upload(content, { method: "PUT", body, headers });
        this.puts.set(file, (this.puts.get(file) ?? new Set()).add(request));
        const response = await request;
        this.show(first + size, total, "to the hub");
        await this.sendResponse(id, response);
    }

    async delete(content, _buffers, signal) {
        await Promise.allSettled(this.puts.get(content.file) ?? []);
        this.puts.delete(content.file);
        await this.sendResponse(content.id, await this.upload(content, { method: "DELETE", signal }));
    }

    async fetchFile({ id, target }, _buffers, signal) {
        if (!target.startsWith("/") || target.startsWith("//")) throw new TypeError("this is no path");
        const response = await this.request(target, { signal });
        if (!response.ok) return this.sendResponse(id, response);
        this.send({ op: "response", id, status: response.status, reason: response.statusText, is_stream: true });
        const total = Number(response.headers.get("Content-Length")) || 0;
        const parts = new Parts(response.body.getReader());
        let credits = CREDITS;
        let done = 0;
        let number = 0;
        let wake = () => {};
        this.credits.set(id, () => { credits += 1; wake(); });
        signal.addEventListener("abort", () => wake());
        for (let part = await parts.next(); part; part = await parts.next()) {
            while (credits === 0) {
                signal.throwIfAborted();
                await new Promise((resolve) => { wake = resolve; });
            }
            signal.throwIfAborted();
            credits -= 1;
            done += part.byteLength;
            this.send({ op: "chunk", id, number }, [part]);
            this.show(done, total, "from the hub");
            number += 1;
        }
        this.send({ op: "end", id, number });
        return undefined;
    }

    show(done, total, where) {
        const size = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
        this.transferred = done === total ? "" : `${size(done)}${total ? ` of ${size(total)}` : ""} ${where}`;
        this.changed();
    }
}

// Reads a stream in parts of CHUNK bytes.
class Parts {
    constructor(reader) {
        this.reader = reader;
        this.rest = new Uint8Array(0);
    }

    async next() {
        const pieces = [this.rest];
        let size = this.rest.byteLength;
        while (size < CHUNK) {
            const { value, done } = await this.reader.read();
            if (done) break;
            pieces.push(value);
            size += value.byteLength;
        }
        if (!size) return null;
        const all = new Uint8Array(await new Blob(pieces).arrayBuffer());
        this.rest = all.slice(CHUNK);
        return all.slice(0, CHUNK).buffer;
    }
}

// What the user sees

const STYLE = `
.pyvo-samp { font: var(--jp-ui-font-size1, 13px) / 1.5 var(--jp-ui-font-family, system-ui, sans-serif);
    color: var(--jp-ui-font-color1, CanvasText); background: var(--jp-layout-color1, Canvas);
    border: 1px solid var(--jp-border-color2, #8884); border-radius: 4px; padding: 12px 16px; margin: 4px 0;
    max-width: 640px; box-sizing: border-box; }
.pyvo-samp header { display: flex; align-items: center; gap: 8px; font-weight: 600; }
.pyvo-samp .mark { width: 10px; height: 10px; border-radius: 50%; background: #8888; flex: none; }
.pyvo-samp[data-kind="good"] .mark { background: #2e9e4f; }
.pyvo-samp[data-kind="busy"] .mark { background: #d99a00; }
.pyvo-samp[data-kind="bad"] .mark { background: #d0433b; }
.pyvo-samp p { margin: 8px 0 0; }
.pyvo-samp code { font-family: var(--jp-code-font-family, monospace); background: var(--jp-layout-color2, #8882);
    padding: 1px 4px; border-radius: 3px; }
.pyvo-samp button { font: inherit; font-weight: 600; margin-top: 12px; padding: 4px 16px; border: 0; border-radius: 3px;
    color: white; background: #1767b3; cursor: pointer; }
.pyvo-samp button:hover { background: #10558f; }
.pyvo-samp button:focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
.pyvo-samp .detail { color: var(--jp-ui-font-color2, GrayText); }
`;

const START = "Run `samp hub --web-consent tk` in a terminal of this computer. TOPCAT's own hub is enough for messages, but accepts no files.";

// The kind of a state, its title, paragraphs, and the text of the button if there is one.
function describe(relay) {
    const { state, page, path } = relay.state;
    const host = location.host;
    const hub = `localhost:${relay.port}`;
    if (relay.view === "insecure") {
        return ["bad", "This page is not secure", [
            `Browsers let a page use programs on your computer only if it comes by https. The address of this page begins with ${location.protocol}//.`,
            "Ask the operators of this Jupyter service for an https address.",
        ]];
    }
    if (relay.view === "asking" || relay.view === "claimed") {
        return ["busy", "Connecting to the hub…", [
            `Your browser may ask whether ${host} may use apps on this device, or devices in your local network. Choose Allow.`,
        ]];
    }
    if (relay.view === "blocked") {
        return ["bad", "Your browser does not allow it", [
            "This page may not use programs on your computer, because that was blocked for this site.",
            "Click the icon at the left end of the address bar, and set “Apps on device” (or “Local network access”) to Allow. Then try again.",
        ], "Try again"];
    }
    if (relay.view === "no hub") {
        return ["bad", "No SAMP hub on this computer", [
            `Nothing responds at ${hub}. ${START} Then try again.`,
            "Also try again if your browser asked for permission and you closed the question without choosing.",
        ], "Try again"];
    }
    if (relay.view === "stopped") {
        return ["idle", "The kernel was restarted", ["Run this cell again."]];
    }
    if (relay.view === "no kernel") {
        return ["busy", "Waiting for the kernel", [
            "It does not respond. If a cell is running, wait until it ends. If the kernel was restarted, run this cell again.",
        ]];
    }
    if (relay.view === "idle" && page && page !== relay.id) {
        return ["idle", "Connected in another tab", [
            "Another page of this notebook passes the messages. It has to stay open.",
        ], "Use this tab"];
    }
    if (relay.view === "idle") {
        const again = state === "lost" || relay.state.resume;
        return ["idle", again ? "Not connected any more" : "Not connected", [
            "This notebook runs on a server; TOPCAT, DS9 and other SAMP programs run on your computer. This page can pass messages and files between them.",
            `Your browser will ask whether ${host} may use apps on this device. Choose Allow: the page calls only the SAMP hub at ${hub}.`,
            "When the notebook connects, the hub asks you once more whether it may.",
        ], "Connect"];
    }
    if (state === "consent") {
        return ["busy", "Waiting for your consent", [
            "The SAMP hub on your computer asks whether this notebook may connect. Look for its window, behind this one perhaps, or in its terminal.",
        ]];
    }
    if (state === "lost") {
        return ["bad", "The hub no longer responds", [`${START} Then connect the notebook again: \`client.connect(web=relay)\`.`]];
    }
    if (state !== "open") return ["busy", "Waiting for the kernel", ["It has not responded for some seconds."]];
    const detail = path === "between cells"
        ? "Messages reach this notebook when no cell runs: use `await` to wait for them."
        : "Keep this tab open: messages and files pass through it.";
    return ["good", "Connected to the hub on your computer", [detail]];
}

// Fills an element with text, in which `code` stands between backquotes.
function fill(element, text) {
    text.split("`").forEach((part, number) => {
        if (number % 2) element.appendChild(document.createElement("code")).textContent = part;
        else element.append(part);
    });
}

function draw(relay, box) {
    const [kind, title, paragraphs, button] = describe(relay);
    const hadFocus = box.contains(document.activeElement);
    box.dataset.kind = kind;
    box.replaceChildren();
    const header = box.appendChild(document.createElement("header"));
    header.appendChild(document.createElement("span")).className = "mark";
    header.append(`SAMP: ${title}`);
    for (const text of paragraphs) fill(box.appendChild(document.createElement("p")), text);
    if (relay.transferred && kind === "good") {
        const line = box.appendChild(document.createElement("p"));
        line.className = "detail";
        line.textContent = relay.transferred;
    }
    if (button) {
        const element = box.appendChild(document.createElement("button"));
        element.textContent = button;
        element.addEventListener("click", () => relay.connect("click"));
        if (hadFocus) element.focus();
    }
}

const relays = new Map();

function find(model) {
    const key = model.get("_comm_id");
    if (!relays.has(key)) relays.set(key, new Relay(model));
    return relays.get(key);
}

function initialize({ model }) {
    const relay = find(model);
    relay.start();
    return () => {
        relay.stop();
        relays.delete(model.get("_comm_id"));
    };
}

function render({ model, el }) {
    const relay = find(model);
    const style = el.appendChild(document.createElement("style"));
    style.textContent = STYLE;
    const box = el.appendChild(document.createElement("section"));
    box.className = "pyvo-samp";
    box.setAttribute("aria-live", "polite");
    const listener = () => draw(relay, box);
    relay.listeners.add(listener);
    listener();
    return () => relay.listeners.delete(listener);
}

export default { initialize, render };
