"use strict";
// Draws each figure in the colors that the reader's system asks for, and again when these change.
const report = JSON.parse(document.getElementById("report-data").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");

async function draw() {
  const config = dark.matches ? report.dark : report.light;
  for (const [name, spec] of Object.entries(report.specs)) {
    const options = { config, renderer: "svg", actions: false, defaultStyle: false, tooltip: { disableDefaultStyle: true } };
    options.ast = true;  // expressions are interpreted: the page's policy allows no code from text
    await window.vegaEmbed(document.getElementById("figure-" + name), spec, options);
  }
}

dark.addEventListener("change", draw);
draw();
