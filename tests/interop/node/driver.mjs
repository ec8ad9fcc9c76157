// Drives a headless Chromium for the tests: one command per line of standard input, one response per line of output.
//
// A command is {id, do, ...}; its response is {id, result} or {id, error}. Commands run concurrently, so that a
// registration that waits for consent does not delay the others.
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [, , executablePath, userDataDir, ...moreFlags] = process.argv;
// Playwright disables the back/forward cache, which browsers of users have.
const ignoreDefaultArgs = ["--disable-back-forward-cache"];
const flags = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", ...moreFlags,
];
const context = await chromium.launchPersistentContext(userDataDir, {
    executablePath, headless: true, chromiumSandbox: false, args: flags, ignoreDefaultArgs,
    viewport: { width: 900, height: 600 },
});
const pages = new Map();
const dialogs = new Map();

const commands = {
    async open({ page, url }) {
        const opened = await context.newPage();
        opened.on("console", (message) => process.stderr.write(`[page ${page}] ${message.text()}\n`));
        opened.on("pageerror", (error) => process.stderr.write(`[page ${page}] ${error}\n`));
        opened.on("dialog", (dialog) => {
            if (dialog.type() === "beforeunload") dialog.accept();
            else dialogs.set(page, dialog);
        });
        pages.set(page, opened);
        await opened.goto(url);
    },
    async goto({ page, url }) {
        await pages.get(page).goto(url);
    },
    async back({ page }) {
        await pages.get(page).goBack({ waitUntil: "commit" });
    },
    async closeDialog({ page }) {
        await dialogs.get(page).accept();
    },
    // Calls a method of the page's `client` (see client.js) and waits for its promise.
    run({ page, method, args }) {
        return pages.get(page).evaluate(([name, list]) => globalThis.client[name](...list), [method, args]);
    },
    // Calls a method of Playwright: of the tab, of its keyboard, or of the element of a selector.
    async act({ page, of, method, args }) {
        const tab = pages.get(page);
        const target = of === "page" ? tab : of === "keyboard" ? tab.keyboard : tab.locator(of);
        return target[method](...args);
    },
    evaluate({ page, expression }) {
        return pages.get(page).evaluate(expression);
    },
    // Returns Chromium's counters for a tab, such as JSHeapUsedSize and Nodes, after a garbage collection.
    async metrics({ page }) {
        const session = await context.newCDPSession(pages.get(page));
        await session.send("Performance.enable");
        await session.send("HeapProfiler.collectGarbage");
        const { metrics } = await session.send("Performance.getMetrics");
        await session.detach();
        return Object.fromEntries(metrics.map(({ name, value }) => [name, value]));
    },
    // Sets a permission as a user does, to "granted" or "denied". It is valid until the session ends.
    async setPermission({ page, origin, name, setting }) {
        const session = await context.newCDPSession(pages.get(page));
        await session.send("Browser.setPermission", { permission: { name }, setting, origin });
    },
    // Grants a permission to an origin for as long as the browser runs.
    async grantPermission({ origin, name }) {
        await context.grantPermissions([name], { origin });
    },
    async reload({ page }) {
        await pages.get(page).reload();
    },
    async close({ page }) {
        await pages.get(page).close();
    },
    async screenshot({ page, path }) {
        await pages.get(page).screenshot({ path });
    },
};

function write(response) {
    process.stdout.write(JSON.stringify(response) + "\n");
}

write({ id: 0, result: context.browser()?.version() ?? "" });
for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    commands[command.do](command).then(
        (result) => write({ id: command.id, result: result ?? null }),
        (error) => write({ id: command.id, error: String(error) }),
    );
}
await context.close();
