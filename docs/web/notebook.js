// Licensed under a 3-clause BSD style license - see LICENSE.rst
// A page that takes part in SAMP by sampjs: it sends coord.pointAt.sky when the chart is clicked, and shows those that come.
"use strict";

const canvas = document.getElementById("sky");

const page = {
    connection: null,
    crosses: [],
    waiting: [],

    // Asks the hub to let the page in; the hub asks its user.
    join() {
        this.tell("waiting for your consent: look at the hub");
        return new Promise((resolve, reject) => {
            samp.register("Sky chart", (connection) => {
                this.connection = connection;
                connection.onclose = () => this.tell("not connected");
                this.listen(connection, resolve);
            }, (error) => {
                this.tell("no hub, or it was told not to let this page in");
                reject(new Error(String(error)));
            });
        });
    },

    listen(connection, ready) {
        const tracker = new samp.ClientTracker();
        tracker.callHandler["coord.pointAt.sky"] = (sender, message) => {
            const { ra, dec } = message["samp.params"];
            this.mark(Number(ra), Number(dec), "yellow");
            this.log(`${tracker.getName(sender)} points at ${Number(ra).toFixed(2)} ${Number(dec).toFixed(2)}`);
            return {};
        };
        tracker.init(connection);
        connection.declareMetadata([{ "samp.name": "Sky chart", "samp.description.text": "A page with a chart" }]);
        connection.setCallable(tracker, () => {
            const wanted = { "coord.pointAt.sky": {}, "samp.hub.event.*": {}, "samp.hub.disconnect": {} };
            connection.declareSubscriptions([wanted], () => {
                this.tell("connected");
                ready();
            });
        });
    },

    // Tells all others to look there; what is sent has to be text.
    point(ra, dec) {
        this.mark(ra, dec, "lightblue");
        const message = new samp.Message("coord.pointAt.sky", { ra: ra.toFixed(5), dec: dec.toFixed(5) });
        return new Promise((resolve, reject) => this.connection.notifyAll([message], resolve, reject));
    },

    mark(ra, dec, colour) {
        const x = canvas.width * (1 - ra / 360), y = canvas.height * (0.5 - dec / 180);
        const pen = canvas.getContext("2d");
        pen.strokeStyle = colour;
        pen.lineWidth = 2;
        pen.beginPath();
        pen.moveTo(x - 10, y);
        pen.lineTo(x + 10, y);
        pen.moveTo(x, y - 10);
        pen.lineTo(x, y + 10);
        pen.stroke();
        this.crosses.push([ra, dec]);
        this.waiting.splice(0).forEach((resolve) => resolve());
    },

    // Waits for that many crosses, and tells where they are.
    async wait(count) {
        while (this.crosses.length < count) {
            await new Promise((resolve) => this.waiting.push(resolve));
        }
        return this.crosses;
    },

    tell(text) {
        document.getElementById("state").textContent = text;
    },

    log(text) {
        document.getElementById("log").textContent += text + "\n";
    },
};

globalThis.client = page;
document.getElementById("join").onclick = () => page.join().catch((error) => page.log(error.message));
canvas.onclick = (event) => {
    if (page.connection === null) {
        page.tell("connect first");
        return;
    }
    page.point(360 * (1 - event.offsetX / canvas.width), 180 * (0.5 - event.offsetY / canvas.height));
};
