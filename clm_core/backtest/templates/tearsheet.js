const figures = JSON.parse(document.getElementById("figures").textContent);
const places = Object.keys(figures).map((id) => document.getElementById(id));

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
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const library = document.createElement("script");
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  library.textContent = await new Response(unpacked).text();
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

for (const button of document.querySelectorAll("[data-scale]")) {
  button.addEventListener("click", () => {
    Plotly.relayout("curves", {"yaxis.type": button.dataset.scale, "yaxis.autorange": true});
    for (const other of document.querySelectorAll("[data-scale]")) other.setAttribute("aria-pressed", other === button);
  });
}
draw().catch((error) => {
  for (const place of places) place.textContent = "The chart could not be drawn: " + error;
});
