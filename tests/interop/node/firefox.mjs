// Drives a headless Firefox for the tests, as driver.mjs drives Chromium: the same commands, the same responses.
//
// Firefox supports WebDriver BiDi over a WebSocket; a library such as Playwright cannot drive an unmodified one.
import { spawn } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import WebSocket from "ws";

const [, , executable, profile] = process.argv;
const flags = ["--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"];
const firefox = spawn(executable, flags, { stdio: ["ignore", "ignore", "pipe"] });
const waiting = new Map();
const contexts = new Map();
const loading = new Map();
let numbers = 0;

function connect() {
    return new Promise((resolve, reject) => {
        firefox.on("exit", (code) => reject(new Error(`Firefox has ended: ${code}`)));
        createInterface({ input: firefox.stderr }).on("line", (line) => {
            process.stderr.write(`${line}\n`);
            const found = /WebDriver BiDi listening on (ws:\S+)/.exec(line);
            if (found) {
                const socket = new WebSocket(`${found[1]}/session`);
                socket.on("open", () => resolve(socket));
                socket.on("error", reject);
            }
        });
    });
}

// Sends a command of BiDi, and waits for its result.
function send(method, params) {
    return new Promise((resolve, reject) => {
        numbers += 1;
        waiting.set(numbers, { resolve, reject });
        socket.send(JSON.stringify({ id: numbers, method, params }));
    });
}

async function evaluate(page, expression) {
    const { type, result, exceptionDetails } = await send("script.evaluate", {
        expression: `Promise.resolve(${expression}).then((result) => JSON.stringify(result ?? null))`,
        awaitPromise: true, target: { context: contexts.get(page) },
    });
    if (type === "exception") {
        throw new Error(exceptionDetails.text);
    }
    return JSON.parse(result.value);
}

const commands = {
    async open({ page, url }) {
        const { context } = await send("browsingContext.create", { type: "tab" });
        contexts.set(page, context);
        await send("browsingContext.navigate", { context, url, wait: "complete" });
    },
    async goto({ page, url }) {
        await send("browsingContext.navigate", { context: contexts.get(page), url, wait: "complete" });
    },
    async back({ page }) {
        const context = contexts.get(page);
        const loaded = new Promise((resolve) => loading.set(context, resolve));
        await send("browsingContext.traverseHistory", { context, delta: -1 });
        await loaded;
    },
    run({ page, method, args }) {
        return evaluate(page, `globalThis.client[${JSON.stringify(method)}](...${JSON.stringify(args)})`);
    },
    evaluate({ page, expression }) {
        return evaluate(page, expression);
    },
    async reload({ page }) {
        await send("browsingContext.reload", { context: contexts.get(page), wait: "complete" });
    },
    async close({ page }) {
        await send("browsingContext.close", { context: contexts.get(page) });
    },
    async screenshot({ page, path }) {
        const { data } = await send("browsingContext.captureScreenshot", { context: contexts.get(page) });
        await writeFile(path, data, "base64");
    },
    async closeDialog({ page }) {
        await send("browsingContext.handleUserPrompt", { context: contexts.get(page), accept: true });
    },
};

function write(response) {
    process.stdout.write(JSON.stringify(response) + "\n");
}

const socket = await connect();
socket.on("message", (data) => {
    const { id, type, result, message, params } = JSON.parse(data);
    if (type === "event") {
        loading.get(params.context)?.();
        return;
    }
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (type === "success") {
        resolve(result);
    } else {
        reject(new Error(message));
    }
});
const { capabilities } = await send("session.new", {
    capabilities: { alwaysMatch: { unhandledPromptBehavior: { default: "ignore" } } },
});
await send("session.subscribe", { events: ["browsingContext.load"] });
write({ id: 0, result: `Firefox ${capabilities.browserVersion}` });
for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    commands[command.do](command).then(
        (result) => write({ id: command.id, result: result ?? null }),
        (error) => write({ id: command.id, error: String(error) }),
    );
}
await send("browser.close", {});
