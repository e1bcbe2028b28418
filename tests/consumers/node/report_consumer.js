// Opens pages of reports in a browser, from the disk, and writes down what they show.
//
// Usage: node report_consumer.js BROWSER JOBS.json RESULTS.json
//
// JOBS.json is a list of {"page": a file, "width": of the window in pixels, "scheme": "light"
// or "dark", "screenshot": a file to write, "pdf": a file to print to}.
"use strict";

const fs = require("node:fs");
const { pathToFileURL } = require("node:url");
const { chromium } = require("playwright-core");

const OPTIONS = [
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-gpu",
  "--disable-sync",
  "--no-first-run",
];

// Whether a figure is what the JSON has at its place, and its text a rounding of that.
function inspect() {
  const facts = JSON.parse(document.getElementById("report").textContent);
  const at = (place) => place.split("/").slice(1).reduce((value, part) => value[part], facts);
  const figures = [...document.querySelectorAll("data")].map((figure) => {
    const found = at(figure.dataset.at);
    const unit = { "%": 0.01, ms: 1e-3, MB: 1e6 }[figure.textContent.split(" ").pop()] ?? 1;
    const text = figure.textContent.replaceAll(",", "").replace("< ", "");
    return {
      at: figure.dataset.at,
      isSame: Number(figure.value) === found,
      off: Math.abs(parseFloat(text) * unit - found),
    };
  });
  // A plot that is drawn in a browser has a size, and colours that are not the paper's.
  const plots = [...document.querySelectorAll("figure svg")].map((plot) => {
    const mark = plot.querySelector("[data-at] use, [data-at] > path");
    const style = mark && getComputedStyle(mark);
    return {
      title: plot.getAttribute("aria-label"),
      width: plot.getBoundingClientRect().width,
      colour: style && (style.fill === "none" ? style.stroke : style.fill),
      label: getComputedStyle(plot.querySelector("text")).fill,
      smallest: Math.min(
        ...[...plot.querySelectorAll("text")].map((text) => text.getBoundingClientRect().height),
      ),
    };
  });
  return {
    title: document.title,
    paper: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
    figures,
    plots,
    sections: [...document.querySelectorAll("section")].map((section) => ({
      id: section.id,
      text: section.innerText,
      isMarked: Boolean(section.querySelector(".watermark rect")?.getBoundingClientRect().width),
    })),
    isTooWide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
  };
}

async function look(browser, { page: file, width, scheme, screenshot, pdf }) {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme: scheme });
  const page = await context.newPage();
  const requests = [];
  const complaints = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => complaints.push(message.text()));
  const address = String(pathToFileURL(file));
  await page.goto(address);
  await page.screenshot({ path: screenshot, fullPage: true });
  const shown = await page.evaluate(inspect);
  await page.pdf({ path: pdf, format: "A4" });
  await context.close();
  const asked = requests.filter((url) => url !== address && !url.startsWith("data:"));
  return { ...shown, asked, complaints };
}

async function main([executablePath, jobs, results]) {
  const browser = await chromium.launch({ executablePath, args: OPTIONS, chromiumSandbox: false });
  const found = [];
  try {
    for (const job of JSON.parse(fs.readFileSync(jobs))) found.push(await look(browser, job));
  } finally {
    await browser.close();
  }
  fs.writeFileSync(results, JSON.stringify(found));
}

main(process.argv.slice(2)).then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
