"use strict";
(() => {
  const payload = JSON.parse(document.getElementById("payload").textContent);
  const rows = {};
  for (const [name, packed] of Object.entries(payload.datasets)) rows[name] = unpack(packed);
  rows.chains = rows.table.filter((row) => row.chain !== null);
  const views = {};
  window.report = { views, rows };

  /** Columns (text as codes) to rows. */
  function unpack(packed) {
    const names = Object.keys(packed.columns);
    const columns = names.map((name) => {
      const column = packed.columns[name];
      return Array.isArray(column) ? column : column.codes.map((code) => column.values[code]);
    });
    const result = new Array(packed.length);
    for (let i = 0; i < packed.length; i++) {
      const row = {};
      for (let j = 0; j < names.length; j++) row[names[j]] = columns[j][i];
      result[i] = row;
    }
    return result;
  }

  // ---- theme
  const THEMES = ["auto", "light", "dark"];
  const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
  let chosen = "auto";
  const mode = () => (chosen === "auto" ? (systemDark.matches ? "dark" : "light") : chosen);
  const button = document.getElementById("theme");
  button.addEventListener("click", () => {
    chosen = THEMES[(THEMES.indexOf(chosen) + 1) % THEMES.length];
    button.textContent = "theme: " + chosen;
    if (chosen === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    drawAll();
  });
  systemDark.addEventListener("change", drawAll);

  // ---- charts
  /** Fits a specification to the width: views side by side while each has room, else below each other. */
  function fitted(spec, width) {
    const copy = structuredClone(spec);
    const axis = 62;
    if (copy.concat) {
      const columns = Math.max(1, Math.min(copy.columns || 2, Math.floor(width / 360)));
      copy.columns = columns;
      for (const view of copy.concat) {
        const was = view.width;
        view.width = Math.max(200, Math.floor(width / columns) - axis - 12);
        if (view.height && view.width < was * 0.75) view.height = Math.min(view.height, Math.max(210, view.width));
      }
    } else {
      copy.width = width - 4;
      copy.autosize = { type: "fit-x", contains: "padding" };
    }
    return copy;
  }

  async function draw(figure) {
    const element = document.getElementById("chart-" + figure.name);
    if (!element) return;
    const spec = fitted(figure.spec, element.clientWidth);
    spec.description = figure.description;
    spec.datasets = {};
    for (const name of figure.datasets) spec.datasets[name] = rows[name];
    for (const name of figure.shared) spec.datasets[name] = rows.chains;
    const config = structuredClone(payload.themes[mode()]);
    config.axisY.labelLimit = Math.max(90, Math.min(config.axisY.labelLimit, 0.4 * element.clientWidth));
    if (element.clientWidth < 640) config.legend.columns = 2;
    if (views[figure.name]) views[figure.name].finalize();
    const result = await vegaEmbed(element, spec, {
      mode: "vega-lite", actions: false, renderer: figure.is_dense ? "canvas" : "svg", config,
    });
    views[figure.name] = result.view;
    for (const mark of element.querySelectorAll("svg [role=graphics-symbol]:not([aria-label])")) {
      mark.removeAttribute("role"); // a zero line or the ground of a brush says nothing to be read out
      mark.setAttribute("aria-hidden", "true");
    }
  }

  async function drawAll() {
    for (const figure of payload.figures) {
      try {
        await draw(figure);
      } catch (error) { // one chart that cannot be drawn leaves the others on the page
        console.error(figure.name, error);
        document.getElementById("chart-" + figure.name).textContent = "This chart cannot be drawn: " + error.message;
      }
    }
    document.documentElement.dataset.ready = mode();
  }
  let lastWidth = window.innerWidth;
  let timer = null;
  window.addEventListener("resize", () => {
    if (window.innerWidth === lastWidth) return;
    lastWidth = window.innerWidth;
    clearTimeout(timer);
    timer = setTimeout(drawAll, 200);
  });

  // ---- by exposure: one panel is shown, of the chosen settings and stage-3 rate
  const panels = [...document.querySelectorAll(".exposure")];
  function chooseExposure() {
    const scope = document.getElementById("exposure-scope"), rate = document.getElementById("exposure-rate");
    const own = panels.filter((one) => one.dataset.scope === scope.value).map((one) => one.dataset.rate);
    for (const option of rate.options) option.disabled = !own.includes(option.value);
    if (!own.includes(rate.value)) rate.value = own[0];
    for (const one of panels) {
      one.hidden = one.dataset.scope !== scope.value || one.dataset.rate !== rate.value;
    }
  }
  if (panels.length > 1) {
    const [scope, rate] = ["exposure-scope", "exposure-rate"].map((id) => document.getElementById(id));
    rate.value = rate.dataset.first;
    for (const one of [scope, rate]) {
      one.parentElement.hidden = one.options.length < 2;
      one.addEventListener("change", chooseExposure);
    }
    document.getElementById("exposure-choices").hidden = false;
    chooseExposure();
  }

  // ---- table
  const SHOWN = payload.columns;
  const STEP = 25;
  let shown = STEP;
  let sortBy = null;
  function drawTable() {
    const table = document.getElementById("table");
    let list = rows.table;
    if (sortBy) {
      const { name, sign } = sortBy;
      list = [...list].sort((a, b) => sign * compare(a[name], b[name]));
    }
    const head = table.createTHead ? document.createElement("thead") : null;
    const headRow = head.insertRow();
    for (const name of SHOWN) {
      const cell = document.createElement("th");
      const isSorted = sortBy && sortBy.name === name;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name + (isSorted ? (sortBy.sign > 0 ? " ↑" : " ↓") : "");
      cell.scope = "col";
      cell.ariaSort = isSorted ? (sortBy.sign > 0 ? "ascending" : "descending") : "none";
      cell.append(button);
      cell.addEventListener("click", () => { // of the button, too
        sortBy = { name, sign: isSorted ? -sortBy.sign : 1 };
        drawTable();
        table.tHead.rows[0].cells[SHOWN.indexOf(name)].firstChild.focus({ preventScroll: true });
      });
      headRow.append(cell);
    }
    const body = document.createElement("tbody");
    for (const row of list.slice(0, shown)) {
      const line = body.insertRow();
      for (const name of SHOWN) {
        const cell = line.insertCell();
        const value = row[name];
        if (typeof value === "number") {
          cell.className = "number";
          cell.textContent = name.endsWith("seed") ? value : value.toFixed(4);
        } else cell.textContent = value === null ? "–" : value;
        if (name === "status") cell.className = "word chip-" + value;
      }
    }
    table.replaceChildren(head, body);
    document.getElementById("count").textContent = `${Math.min(shown, list.length)} of ${list.length} chains`;
    document.getElementById("more").hidden = shown >= list.length;
  }
  function compare(a, b) {
    if (a === null || b === null) return (a === null) - (b === null);
    return a < b ? -1 : a > b ? 1 : 0;
  }
  document.getElementById("more").addEventListener("click", () => { shown += 10 * STEP; drawTable(); });

  drawTable();
  drawAll();
})();
