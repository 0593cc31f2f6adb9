"use strict";
// Draws each figure in the colors that the reader's system asks for, and again when these change.
const report = JSON.parse(document.getElementById("report-data").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");

async function draw() {
  const colors = dark.matches ? report.dark : report.light;
  for (const [name, spec] of Object.entries(report.specs)) {
    const element = document.getElementById("figure-" + name);
    const width = element.clientWidth;
    const legend = { ...colors.legend, labelLimit: Math.max(120, width - 110), columns: width < 420 ? 2 : 4 };
    const options = { config: { ...colors, legend }, renderer: "svg", actions: false, defaultStyle: false };
    options.tooltip = { disableDefaultStyle: true };
    options.ast = true;  // expressions are interpreted: the page's policy allows no code from text
    await window.vegaEmbed(element, spec, options);
  }
}

dark.addEventListener("change", draw);
draw();
