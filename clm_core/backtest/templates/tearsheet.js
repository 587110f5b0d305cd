let places = [];

async function unpacked(text) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  const patch = {"font.color": of("--text"), "hoverlabel.bgcolor": of("--card"), "hoverlabel.bordercolor": of("--line")};
  for (const axis of ["xaxis", "yaxis", "yaxis2", "yaxis3"]) {
    patch[axis + ".gridcolor"] = of("--grid");
    patch[axis + ".linecolor"] = of("--line");
    patch[axis + ".zerolinecolor"] = of("--muted");
  }
  return patch;
}

function repaint() {
  for (const place of places) {
    const size = {width: place.clientWidth, height: place.clientHeight};
    Plotly.relayout(place, {...colours(), ...size});
  }
}

async function draw() {
  const figures = JSON.parse(await unpacked(document.getElementById("figures").textContent));
  places = Object.keys(figures).map((id) => document.getElementById(id));
  if (!globalThis.packedPlotly) {
    const file = document.querySelector("script[src]").getAttribute("src");
    throw new Error(`The charts need ${file}, which lies beside the reports. The page that clm up serves has them.`);
  }
  const library = document.createElement("script");
  library.textContent = await unpacked(globalThis.packedPlotly);
  document.head.append(library);
  for (const place of places) {
    const {data, layout} = figures[place.id];
    place.replaceChildren();
    // a touch on a chart scrolls the page
    if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false;
    const settings = {displayModeBar: false};
    await Plotly.newPlot(place, data, layout, settings);
  }
  repaint();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  matchMedia("print").addEventListener("change", repaint);
  addEventListener("resize", repaint);
}

async function offerTrades() {
  const text = await unpacked(document.getElementById("trades").textContent);
  document.getElementById("download").href = "data:text/csv;charset=utf-8," + encodeURIComponent(text);
}

if (document.getElementById("trades")) offerTrades();
for (const button of document.querySelectorAll("[data-scale]")) {
  button.addEventListener("click", () => {
    Plotly.relayout("curves", {"yaxis.type": button.dataset.scale, "yaxis.autorange": true});
    for (const other of document.querySelectorAll("[data-scale]")) other.setAttribute("aria-pressed", other === button);
  });
}
draw().catch((error) => {
  for (const place of places) place.textContent = "No chart: " + error.message;
});
