// Opens pages of models in a browser, gives them images, and writes down what they show.
//
// Usage: node page_consumer.js BROWSER JOBS.json RESULTS.json
//
// JOBS.json is a list of {"url", "image": a file, "how": "chosen" or "dropped", "width": of
// the window in pixels, "scheme": "light" or "dark", "screenshot": a file to write}.
"use strict";

const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { chromium } = require("playwright-core");

const OPTIONS = [
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-gpu",
  "--disable-quic",
  "--disable-sync",
  "--no-first-run",
  // Nothing but this machine, whatever a page asks for.
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
];
const TIMEOUT = 600_000; // Milliseconds.

async function drop(page, image) {
  const bytes = fs.readFileSync(image).toString("base64");
  await page.evaluate(([bytes, name]) => {
    const data = Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([data], name));
    document.getElementById("drop").dispatchEvent(
      new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer }),
    );
  }, [bytes, path.basename(image)]);
}

async function look(context, { url, image, how, width, scheme, screenshot }) {
  const page = await context.newPage();
  await page.setViewportSize({ width, height: 900 });
  await page.emulateMedia({ colorScheme: scheme });
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  const reached = (...states) => page.waitForFunction(
    (states) => states.includes(document.body.dataset.state),
    states,
    { timeout: TIMEOUT },
  );
  await page.goto(url);
  await reached("ready", "failed");
  if (how === "dropped") await drop(page, image);
  else await page.setInputFiles("#file", image);
  await reached("done", "failed");
  await page.screenshot({ path: screenshot, fullPage: true });
  const shown = await page.evaluate(() => ({
    state: document.body.dataset.state,
    title: document.title,
    text: document.body.innerText,
    isStandIn: !document.getElementById("stand-in").hidden,
    classes: [...document.querySelectorAll("#classes li")].map(
      (line) => [...line.children].map((part) => part.textContent),
    ),
    features: [...document.querySelectorAll("#features dd")].map((part) => part.textContent),
    isTooWide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
  }));
  await page.close();
  return { ...shown, complaints };
}

async function main([executablePath, jobs, results]) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "irv2-browser-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath,
    args: OPTIONS,
    chromiumSandbox: false,
  });
  const found = [];
  try {
    for (const job of JSON.parse(fs.readFileSync(jobs))) found.push(await look(context, job));
  } finally {
    await context.close();
    fs.rmSync(profile, { recursive: true, force: true });
  }
  fs.writeFileSync(results, JSON.stringify(found));
}

main(process.argv.slice(2)).then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
