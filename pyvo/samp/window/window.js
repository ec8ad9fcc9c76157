// Licensed under a 3-clause BSD style license - see LICENSE.rst
// The hub window. Texts from other programs are shown only with `textContent`.

const MAX_MESSAGES = 500;
const MAX_MARKS = 10; // for each client
// Milliseconds for which the consent buttons are disabled, so that a click meant for something else does not decide. The
// server checks this, too.
const CONSENT_DELAY = 700;
const byId = (id) => document.getElementById(id);
const clients = new Map(), names = new Map(), messages = new Map(), rows = new Map(), icons = new Map();
let key = null, version = 0, isPaused = false, request = null, consentTimer = 0, noticeTimer = 0;
let iconQueue = Promise.resolve();

function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
}

function setText(id, text) { // change only new texts, because a screen reader reads every change
    if (byId(id).textContent !== text) byId(id).textContent = text;
}

const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const duration = (seconds) => (seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`);
const title = (id) => (names.get(id) ? `${names.get(id)} (${id})` : id);
const name = (id) => names.get(id) || id;

// Requests

async function call(method, path, body) {
    const headers = { Authorization: `Bearer ${key}` };
    if (body) headers["Content-Type"] = "application/json";
    const response = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
    if (!response.ok) throw Object.assign(new Error((await response.text()).trim()), { status: response.status });
    return response;
}

async function act(path, body, done) {
    try {
        const result = await (await call("POST", path, body)).json();
        setText("notice", done(result));
        clearTimeout(noticeTimer);
        noticeTimer = setTimeout(() => setText("notice", ""), 10_000);
    } catch (error) {
        setText("notice", error.message);
    }
}

async function openSession() {
    const token = location.hash.slice(1);
    history.replaceState(null, "", "/");
    if (token) {
        const headers = { "Content-Type": "application/json" };
        const response = await fetch("/session", { method: "POST", headers, body: JSON.stringify({ token }) });
        if (response.ok) sessionStorage.setItem("key", (await response.json()).key);
        else if (!sessionStorage.getItem("key")) return (await response.text()).trim();
    }
    key = sessionStorage.getItem("key");
    return key ? "" : "This window has no key";
}

async function readUpdates() { // return whether the hub has stopped
    const response = await call("GET", `/events?since=${version}`);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let parts = [];
    for (;;) {
        const { value, done } = await reader.read();
        if (done) return false;
        const lines = value.split("\n");
        parts.push(lines[0]);
        for (const next of lines.slice(1)) {
            const line = parts.join("");
            parts = [next];
            if (!line) continue;
            const update = JSON.parse(line);
            if (update.stopped) return true;
            apply(update);
        }
    }
}

function setState(text, kind) {
    setText("state", text);
    byId("state").className = `state ${kind}`;
    byId("stop").disabled = kind !== "running";
}

async function run() {
    const problem = await openSession();
    if (problem) {
        setState("not connected", "gone");
        return setText("notice", `${problem}. Open the window again: hub.open_window(), or samp hub --window.`);
    }
    for (let failures = 0; failures < 20; failures += 1) {
        try {
            apply(await (await call("GET", "/state")).json());
            setState("running", "running");
            failures = 0;
            if (await readUpdates()) break;
        } catch (error) {
            if (error.status === 401) return setState("this session has ended; open the window again", "gone");
        }
        setState("no connection; trying again", "gone");
        await new Promise((resolve) => setTimeout(resolve, 500 + Math.min(failures, 5) * 1000));
    }
    setState("the hub has stopped", "gone");
    showConsent([]);
}

// The log

function apply(update) {
    version = update.version;
    if (update.full) {
        messages.clear();
        rows.clear();
        for (const [id, text] of Object.entries(update.names)) names.set(id, text);
    }
    for (const change of update.clients) {
        const known = clients.get(change.id);
        if (!known && !update.full) setText("live", `${change.name || change.id} has registered`);
        clients.set(change.id, { ...known, ...change });
        if (change.name !== undefined) names.set(change.id, change.name);
        if (change.icon && (!known || JSON.stringify(known.metadata) !== JSON.stringify(change.metadata))) loadIcon(change.id);
    }
    if (update.ids) {
        const present = new Set(update.ids);
        for (const id of [...clients.keys()].filter((id) => !present.has(id))) removeClient(id);
    }
    for (const message of update.messages) {
        messages.delete(message.n);
        messages.set(message.n, message);
        rows.delete(message.n);
    }
    const numbers = [...messages.keys()].sort((a, b) => a - b);
    for (const number of numbers.slice(0, -MAX_MESSAGES)) {
        messages.delete(number);
        rows.delete(number);
    }
    for (const id of [...names.keys()].slice(0, -2000)) if (!clients.has(id) && id !== "hub") names.delete(id);
    showHub(update);
    showClients();
    if (!isPaused) showMessages();
    showConsent(update.consent);
}

function removeClient(id) {
    setText("live", `${name(id)} has unregistered`);
    clients.delete(id);
    if (icons.has(id)) URL.revokeObjectURL(icons.get(id));
    icons.delete(id);
}

function loadIcon(id) { // load one at a time, because the hub fetches only a few at the same time
    iconQueue = iconQueue.then(async () => {
        try {
            const blob = await (await call("GET", `/icon/${id}`)).blob();
            if (!clients.has(id)) return;
            if (icons.has(id)) URL.revokeObjectURL(icons.get(id));
            icons.set(id, URL.createObjectURL(blob));
            showClients();
        } catch { /* the first letter of the name is shown instead */ }
    });
}

function showHub(update) {
    setText("label", update.hub.label);
    const items = update.hub.profiles.map((profile) => make("li", {
        className: profile.on ? "on" : "", textContent: `${profile.name}: ${profile.detail}`,
    }));
    if (byId("profiles").textContent !== items.map((item) => item.textContent).join("")) byId("profiles").replaceChildren(...items);
    const missed = update.missed ? `, ${update.missed} not recorded` : "";
    setText("message-count", `${update.total}${missed}`);
    byId("warnings").hidden = !update.warnings.length;
    setText("warning-count", String(update.warnings.length));
    byId("warning-list").replaceChildren(...update.warnings.toReversed().map(
        ([time, text]) => make("li", { textContent: `${clock(time)}  ${text}` })));
}

// Clients

function makeMarks() { // return the last messages of each client, and the number of responses that are due
    const found = new Map([...clients.keys()].map((id) => [id, { marks: [], due: 0 }]));
    const add = (id, kind, status, mtype) => {
        const entry = found.get(id);
        if (!entry) return;
        if (status === "due") entry.due += 1;
        if (entry.marks.length < MAX_MARKS || (status === "due" && entry.due <= MAX_MARKS)) entry.marks.push([kind, status, mtype]);
    };
    for (const message of [...messages.values()].sort((a, b) => b.n - a.n)) {
        if (!message.count) continue;
        add(message.sender, "out", message.status, message.mtype);
        for (const [id, status] of message.to) add(id, "in", status, message.mtype);
    }
    return found;
}

function showClients() {
    const list = byId("clients"), marks = makeMarks();
    const items = new Map([...list.children].map((item) => [item.dataset.id, item]));
    for (const [id, item] of items) if (!clients.has(id)) item.remove();
    for (const client of clients.values()) {
        const item = items.get(client.id) ?? list.appendChild(makeClient(client.id));
        fillClient(item, client, marks.get(client.id));
    }
    setText("client-count", String(clients.size));
    byId("no-clients").hidden = clients.size > 0;
    const select = byId("by-client");
    const ids = [...clients.keys()];
    if (select.dataset.ids !== ids.map(title).join("\n")) {
        select.dataset.ids = ids.map(title).join("\n");
        const chosen = select.value;
        select.replaceChildren(new Option("all clients", ""), ...ids.map((id) => new Option(title(id), id)));
        if (chosen && !clients.has(chosen)) select.append(new Option(title(chosen), chosen));
        select.value = chosen;
    }
}

function makeClient(id) {
    const item = make("li");
    item.dataset.id = id;
    const ping = make("button", { textContent: "Ping" });
    ping.onclick = () => act("/ping", { id }, (result) => (result.status
        ? `${title(id)} replied ${result.status} in ${duration(result.seconds)}`
        : `${title(id)} has not replied within ${result.seconds} s`));
    const disconnect = make("button", { textContent: "Disconnect", className: "danger" });
    disconnect.onclick = () => ask(`Disconnect ${title(id)} from the hub?`, "Disconnect", () =>
        act("/disconnect", { id }, () => `${title(id)} was disconnected`));
    item.append(make("details", {},
        make("summary", {}, make("span", { className: "icon", ariaHidden: "true" }), make("bdi", { className: "name" }),
            make("span", { className: "marks", role: "img" }), make("span", { className: "facts" }, make("span"), make("span", { className: "active" }))),
        make("div", { className: "more" }, make("dl"), make("p", { className: "buttons" }, ping, disconnect))));
    return item;
}

function fillClient(item, client, { marks, due }) {
    const part = (selector) => item.querySelector(selector);
    const set = (selector, text) => { if (part(selector).textContent !== text) part(selector).textContent = text; };
    set(".name", client.name || client.id);
    set(".facts > :first-child", `${client.id} · ${client.profile} · ${client.sent} sent, ${client.received} received`);
    set(".active", client.active ? clock(client.active) : "");
    part(".active").title = "last active";
    const source = icons.get(client.id), image = part(".icon img");
    if (!source) set(".icon", (client.name || client.id).trim().slice(0, 1).toUpperCase());
    else if (image?.src !== source) part(".icon").replaceChildren(make("img", { src: source, alt: "" }));
    const shape = marks.map((mark) => mark.join(" ")).join("\n");
    if (item.dataset.marks !== shape) {
        item.dataset.marks = shape;
        part(".marks").replaceChildren(...marks.toReversed().map(([kind, status, mtype]) => make("i", {
            className: `mark ${kind} ${status}`, title: `${kind === "out" ? "sent" : "received"} ${mtype} ${status}` })));
    }
    part(".marks").ariaLabel = `${plural(due, "response")} due`;
    const facts = [...client.metadata.filter(([term]) => term !== "samp.name"), ["subscriptions", client.subscriptions.join(", ") || "none"]];
    const text = JSON.stringify(facts);
    if (item.dataset.facts !== text) {
        item.dataset.facts = text;
        part("dl").replaceChildren(...facts.flatMap(([term, value]) => [
            make("dt", { textContent: term }), make("dd", {}, make("bdi", { textContent: value }))]));
    }
}

// Messages

function isShown(message) {
    const client = byId("by-client").value, status = byId("by-status").value;
    const mtype = byId("by-mtype").value.trim().toLowerCase();
    return (!client || message.sender === client || message.to.some(([id]) => id === client))
        && (!mtype || message.mtype.toLowerCase().includes(mtype))
        && (!status || message.status === status || message.kind === status);
}

function makeRow(message) {
    const { n, kind, count } = message;
    const cell = (properties, ...children) => make("td", { role: "cell", ...properties }, ...children);
    if (!count) return make("tr", { role: "row", className: kind }, cell({ textContent: clock(message.time) }),
        cell({ colSpan: 5 }, make("bdi", { textContent: message.text || message.mtype })));
    const open = make("button", { textContent: message.mtype, ariaHasPopup: "dialog" });
    open.dataset.n = n;
    open.onclick = () => showDetail(n, false);
    const to = message.to.slice(0, 3).map(([id]) => name(id)).join(", ") + (count > 3 ? ` and ${count - 3} more` : "");
    const status = kind === "call" ? message.status : kind;
    const took = message.status && message.took !== null ? ` ${duration(message.took)}` : "";
    return make("tr", { role: "row", className: kind },
        cell({ textContent: clock(message.time) }), cell({}, open),
        cell({}, make("bdi", { textContent: name(message.sender) })),
        cell({ title: message.to.map(([id]) => title(id)).join("\n") }, make("bdi", { textContent: to })),
        cell({}, make("span", { className: `status ${message.status}`, textContent: status }), make("span", { className: "took", textContent: took })),
        cell({ className: "content" }, make("bdi", { textContent: message.text })));
}

function showMessages() {
    const shown = [...messages.values()].filter(isShown).sort((a, b) => b.n - a.n);
    const focused = document.activeElement?.dataset?.n;
    const wanted = shown.map((message) => {
        if (!rows.has(message.n)) rows.set(message.n, makeRow(message));
        return rows.get(message.n);
    });
    const body = byId("rows"), keep = new Set(wanted);
    for (const row of [...body.children]) if (!keep.has(row)) row.remove();
    let next = body.firstChild;
    for (const row of wanted) { // do not move rows, because one of them may have the focus
        if (row === next) next = next.nextSibling;
        else body.insertBefore(row, next);
    }
    if (focused && !document.activeElement?.dataset?.n) body.querySelector(`[data-n="${focused}"]`)?.focus();
    byId("no-messages").hidden = wanted.length > 0;
    setText("no-messages", messages.size ? "No message matches the filter." : "No message has been sent yet.");
}

async function showDetail(n, whole) {
    const message = messages.get(n);
    let detail;
    try {
        detail = await (await call("GET", `/message/${n}${whole ? "?whole" : ""}`)).json();
    } catch (error) {
        return setText("notice", error.message);
    }
    setText("detail-title", message?.mtype ?? "");
    if (message) setText("detail-meta", `${clock(message.time)} · ${message.kind} from ${title(message.sender)} to ${message.to.map(([id]) => title(id)).join(", ")}`);
    setText("detail-text", detail.text);
    byId("detail-replies").replaceChildren(...detail.replies.flatMap((reply) => [
        make("h3", {}, make("bdi", { textContent: `${title(reply.client_id)}: ${reply.samp_status} after ${duration(reply.seconds)}` })),
        make("pre", { textContent: reply.value || reply.error, tabIndex: 0, role: "region", ariaLabel: `Response of ${title(reply.client_id)}` })]));
    byId("detail-whole").hidden = detail.whole;
    byId("detail-whole").onclick = () => showDetail(n, true);
    if (!byId("detail").open) byId("detail").showModal();
}

// Dialogs

function ask(text, verb, action) {
    setText("confirm-text", text);
    setText("confirm-yes", verb);
    byId("confirm-yes").onclick = () => {
        byId("confirm").close();
        action();
    };
    byId("confirm").showModal();
}

function disableConsentButtons() { // enable them again after the user has had time to read the request
    const buttons = ["deny", "always", "once"].map((word) => byId(`consent-${word}`));
    for (const button of buttons) button.disabled = true;
    clearTimeout(consentTimer);
    consentTimer = setTimeout(() => {
        for (const button of buttons) button.disabled = button.id === "consent-always" && !request?.always;
    }, CONSENT_DELAY);
}

function showConsent(requests) {
    const next = requests[0] ?? null, dialog = byId("consent");
    if (next?.id === request?.id) return;
    if (!next) setText("live", "No web page is waiting for consent");
    request = next;
    if (!next) return dialog.close();
    setText("consent-name", next.name);
    setText("consent-origin", next.origin);
    setText("consent-meaning", next.meaning);
    byId("consent-always").hidden = !next.always;
    disableConsentButtons();
    if (!dialog.open) dialog.showModal();
    byId("consent-title").focus();
}

for (const decision of ["deny", "always", "once"]) {
    byId(`consent-${decision}`).onclick = () => {
        const { id, name: page } = request;
        disableConsentButtons();
        act("/consent", { id, decision }, () => `${page}: ${{ deny: "denied", always: "always allowed", once: "allowed" }[decision]}`);
    };
}
byId("consent").addEventListener("cancel", (event) => event.preventDefault()); // the Escape key must not close the dialog
byId("consent").addEventListener("close", () => { if (request) byId("consent").showModal(); });
addEventListener("focus", disableConsentButtons);
document.addEventListener("visibilitychange", disableConsentButtons);

byId("stop").onclick = () => ask("Stop the hub? All programs will be disconnected.", "Stop the hub", () => act("/stop", {}, () => ""));
byId("confirm-no").onclick = () => byId("confirm").close();
byId("detail-close").onclick = () => byId("detail").close();
for (const id of ["by-client", "by-mtype", "by-status"]) byId(id).addEventListener("input", showMessages);
byId("pause").onclick = () => {
    isPaused = !isPaused;
    byId("pause").ariaPressed = String(isPaused);
    setText("pause", isPaused ? "Continue" : "Pause");
    if (!isPaused) showMessages();
};
addEventListener("hashchange", () => location.reload()); // another link was opened in this tab
run();
