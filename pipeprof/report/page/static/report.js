// Draws the page's charts and redraws them when the theme changes. Everything it shows came as data in the page.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  let onPaper = false;
  const isDark = () => !onPaper && (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const views = new Map();

  async function draw(element) {
    const name = element.dataset.chart;
    const spec = data.charts[name];
    // `ast` keeps Vega from compiling expressions with eval, which the page's policy forbids.
    const drawn = await vegaEmbed(element, structuredClone(spec), {
      actions: false, renderer: "svg", ast: true, config: data.themes[isDark() ? "dark" : "light"],
      tooltip: { theme: "custom" },
    });
    views.get(name)?.finalize();
    views.set(name, drawn.view);
  }

  const visible = (element) => element.checkVisibility();
  const charts = () => [...document.querySelectorAll("[data-chart]")];

  // What is on the screen comes first; between two charts the page may answer its reader.
  const breath = () => new Promise((resolve) => setTimeout(resolve, 0));
  async function drawAll() {
    document.dispatchEvent(new CustomEvent("pipeprof:themed"));
    const onScreen = (element) => element.getBoundingClientRect().top < innerHeight;
    const wanted = charts().filter(visible);
    for (const element of wanted.filter(onScreen)) await draw(element);
    performance.mark("interactive");
    for (const element of wanted.filter((one) => !onScreen(one))) {
      await breath();
      await draw(element);
    }
  }

  function themeButton() {
    const button = document.getElementById("theme");
    const label = () => {
      button.textContent = isDark() ? "Light" : "Dark";
      button.setAttribute("aria-label", `Switch to the ${isDark() ? "light" : "dark"} theme`);
    };
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      label();
      drawAll();
    });
    system.addEventListener("change", () => { label(); drawAll(); });
    label();
  }

  // A folded chart has no width, so it is drawn when it is unfolded.
  document.addEventListener("toggle", (event) => {
    if (!event.target.open) return;
    for (const element of event.target.querySelectorAll("[data-chart]")) {
      if (visible(element) && !views.has(element.dataset.chart)) draw(element);
    }
    document.dispatchEvent(new CustomEvent("pipeprof:themed"));
  }, true);
  // Paper is narrower than the screen and never dark, so all is drawn anew for it: a picture that is only shrunk
  // has letters too small to read. `draw` waits for nothing but what is at hand, so that it is done before the
  // page is taken.
  addEventListener("beforeprint", () => {
    onPaper = true;
    root.classList.add("paper");
    for (const fold of document.querySelectorAll("details.fold")) fold.open = true;
    for (const element of charts()) if (visible(element)) draw(element);
    document.dispatchEvent(new CustomEvent("pipeprof:printed"));
  });
  addEventListener("afterprint", () => {
    onPaper = false;
    root.classList.remove("paper");
    drawAll();
  });

  window.pipeprof = { data, isDark, views };
  themeButton();
  drawAll().then(() => { root.dataset.ready = "yes"; });
})();
