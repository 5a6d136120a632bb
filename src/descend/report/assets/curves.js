(() => {
  const runs = content.runs.map((run) => ({ ...run, step: unpack(run.step), epoch: unpack(run.epoch) }));
  for (const run of runs) for (const series of Object.values(run.series)) series.v = unpack(series.v);
  const figures = [...document.querySelectorAll("[data-chart]")];
  if (!figures.length) return;
  const several = runs.length > 1;
  const longest = Math.max(...runs.map((run) => (run.step.length ? run.step[run.step.length - 1] - run.step[0] : 0)));
  // Where some losses are noisy, only those are smoothed: an even curve would only be delayed.
  const someNoisy = runs.some((run) => run.noisy);
  const windows = [0, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 1e4, 2e4, 5e4].filter((w) => w === 0 || w < longest / 2);
  const state = {
    by: several && runs.every((run) => run.epoch) && new Set(runs.map((r) => r.step[r.step.length - 1])).size > 1 ? "epoch" : "step",
    logX: false,
    smooth: windows.filter((w) => w <= content.smooth).pop() || 0,
    range: null,
  };
  const charts = content.charts.map((chart, place) => ({ ...chart, figure: figures[place], plot: null }));

  // x and y of one series; of what an exponential mean over about `span` steps makes of it, when span > 0.
  function points(run, key, span) {
    const series = run.series[key];
    if (!series) return null;
    const means = run.means && run.means.series[key];
    if (span && !(means || !series.i)) return null;
    const source = span && means ? run.means : run;
    const places = series.i && !(span && means) ? series.i : null;
    const all = source[state.by];
    const steps = places ? places.map((k) => source.step[k]) : source.step;
    const xs = places ? places.map((k) => all[k]) : all;
    let ys = span && means ? means : series.v;
    if (span) {
      let sum = 0, weight = 0, before = steps[0];
      ys = ys.map((y, k) => {
        if (y === null) return null;
        const keep = (1 - 1 / span) ** Math.max(1, steps[k] - before);
        before = steps[k];
        sum = keep * sum + (1 - keep) * y;
        weight = keep * weight + (1 - keep);
        return sum / weight;
      });
    }
    return [xs, ys];
  }

  function lines(chart) {
    const found = [];
    runs.forEach((run, place) => {
      if (shared.hidden.has(place)) return;
      chart.series.forEach((series) => {
        const raw = points(run, series.key, 0);
        if (!raw) return;
        const shade = several || series.role === "train" ? place : 1;
        const base = { run: place, shade, dash: series.role === "held", label: series.label, name: run.label };
        const coarse = chart.smooth && series.role === "train" && (run.noisy || !someNoisy) ? Math.min(state.smooth, (run.step[run.step.length - 1] - run.step[0]) / 10) : 0;
        const smooth = coarse > 1 ? points(run, series.key, coarse) : null;
        found.push({ ...base, xy: raw, pale: Boolean(smooth), role: series.role, smooth: false });
        if (smooth) found.push({ ...base, xy: smooth, pale: false, role: series.role, smooth: true });
      });
    });
    return found;
  }

  const span = () => {
    let low = Infinity, high = -Infinity;
    for (const run of runs) {
      const xs = run[state.by];
      if (xs && xs.length) { low = Math.min(low, xs[0]); high = Math.max(high, xs[xs.length - 1]); }
    }
    return low < high ? [low, high] : [low - 0.5, high + 0.5];
  };

  function draw(chart) {
    const all = lines(chart).filter((line) => line.xy[0]);
    const log = chart.log;
    const tables = all.map(({ xy: [xs, ys] }) => [xs, log ? ys.map((y) => (y > 0 ? y : null)) : ys]);
    const data = tables.length ? uPlot.join(tables) : [[]];
    const host = chart.host;
    const ink = style("--soft"), grid = { stroke: style("--line"), width: 1 };
    const height = chart.figure.parentElement.classList.contains("large") ? Math.min(380, Math.max(240, innerWidth * 0.6)) : 210;
    if (chart.plot) chart.plot.destroy();
    chart.plot = null;
    chart.lines = all;
    const axis = { stroke: ink, grid, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    chart.plot = new uPlot({
      width: Math.max(200, host.clientWidth),
      height,
      legend: { show: false },
      cursor: { y: false, drag: { x: true, y: false, setScale: false }, points: { show: false }, bind: { dblclick: () => () => zoom(null) } },
      scales: {
        x: { time: false, auto: false, distr: state.logX ? 3 : 1, range: () => state.range || span() },
        y: { distr: log ? 3 : 1 },
      },
      series: [{}, ...all.map((line) => ({
        stroke: style(colourName(line.shade)) + (line.pale ? (several ? "38" : "50") : ""),
        width: line.smooth ? 2 : line.pale ? 1 : 1.6,
        dash: line.dash ? [7, 4] : line.run > 7 ? [2, 3] : undefined,
        points: { show: line.xy[0].length < 40, size: 5, fill: style(colourName(line.shade)) },
      }))],
      axes: [
        { ...axis, size: 34, values: (u, splits) => splits.map((v) => show(v)), ...(state.logX ? { splits: decades, filter: (u, splits) => splits } : {}) },
        { ...axis, size: 62, values: (u, splits) => splits.map((v) => show(v, 3)), ...(log ? { splits: decades, filter: (u, splits) => splits } : {}) },
      ],
      hooks: { setCursor: [(u) => cursorMoved(chart, u)], setSelect: [selected], draw: [(u) => marks(chart, u)] },
    }, data, host);
    chart.readout.replaceChildren(...all.filter((line) => !line.pale).map((line) => {
      const value = element("b");
      line.value = value;
      const swatch = element("span", { class: `swatch${line.dash ? " dash" : ""}` });
      swatch.style.setProperty("--run", `var(${colourName(line.shade)})`);
      const label = several ? (chart.series.length > 1 ? `${line.name}, ${line.label}` : line.name) : line.label;
      return element("li", {}, swatch, `${label}${line.smooth ? ", smoothed" : ""} `, value);
    }));
    readAt(chart, null);
  }
  // Where a logarithmic axis has lines: powers of ten, every so many; with 2 and 5 between where there are few.
  function decades(u, axis, low, high) {
    const from = Math.floor(Math.log10(low)), to = Math.ceil(Math.log10(high));
    const every = Math.ceil((to - from) / 8), between = to - from <= 2 ? [1, 2, 5] : [1];
    const found = [];
    for (let power = from; power <= to; power += every) for (const k of between) found.push(+(k * 10 ** power).toPrecision(6));
    return found.filter((v) => v >= low * 0.999 && v <= high * 1.001);
  }

  // Steps of interest: the best held-out loss, and where the loss stopped being a number.
  function marks(chart, u) {
    if (chart.key !== "loss") return;
    runs.forEach((run, place) => {
      if (shared.hidden.has(place)) return;
      for (const mark of run.marks) {
        const x = state.by === "step" ? mark.step : run.epoch && run.epoch[upTo(run.step, mark.step)];
        const left = u.valToPos(x, "x", true);
        if (!(left >= u.bbox.left && left <= u.bbox.left + u.bbox.width)) continue;
        const { ctx } = u, scale = devicePixelRatio;
        ctx.save();
        ctx.strokeStyle = ctx.fillStyle = mark.kind === "bad" ? style("--bad") : style(several ? colourName(place) : "--soft");
        ctx.setLineDash([2 * scale, 3 * scale]);
        ctx.beginPath(); ctx.moveTo(left, u.bbox.top); ctx.lineTo(left, u.bbox.top + u.bbox.height); ctx.stroke();
        if (!several) {
          ctx.font = `${12 * scale}px system-ui, sans-serif`;
          const right = left > u.bbox.left + u.bbox.width / 2;
          ctx.textAlign = right ? "right" : "left";
          ctx.fillText(mark.text, left + (right ? -6 : 6) * scale, u.bbox.top + 12 * scale);
        }
        ctx.restore();
      }
    });
  }

  function readAt(chart, x) {
    for (const line of chart.lines) {
      if (!line.value) continue;
      const [xs, ys] = line.xy;
      const place = x === null ? ys.length - 1 : upTo(xs, x + 1e-9);
      line.value.textContent = place < 0 ? "–" : ys[place] === null ? "not finite" : show(ys[place]);
    }
  }

  const unit = () => (state.by === "step" ? "step" : "epoch");
  let busy = false;
  function at(x, from) {
    busy = true;
    for (const chart of charts) {
      if (chart !== from) {
        const left = x === null ? -10 : chart.plot.valToPos(x, "x");
        chart.plot.setCursor({ left, top: x === null ? -10 : 5 }, false);
      }
      readAt(chart, x);
    }
    busy = false;
    where.textContent = x === null ? `values at the end` : `values at ${unit()} ${show(state.by === "step" ? Math.round(x) : x)}`;
  }
  function stepAt(x) {
    if (state.by === "step") return Math.round(x);
    const run = runs[0], place = upTo(run.epoch, x);
    return place < 0 ? 0 : run.step[place];
  }
  let cursor = null;
  function cursorMoved(chart, u) {
    // uPlot also calls this while it sets itself up, before it has a scale.
    if (busy || u !== chart.plot) return;
    const { left } = u.cursor;
    cursor = left === undefined || left < 0 ? null : u.posToVal(left, "x");
    at(cursor, chart);
    if (cursor !== null) shared.look(stepAt(cursor), heard);
  }
  function selected(u) {
    if (u.select.width > 4) zoom([u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")]);
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  }
  function zoom(range) {
    const [low, high] = span();
    if (range) range = [Math.max(low, range[0]), Math.min(high, range[1])];
    state.range = range && range[1] - range[0] > (high - low) * 1e-6 ? range : null;
    const [min, max] = state.range || [low, high];
    for (const chart of charts) chart.plot.setScale("x", { min, max });
    whole.disabled = !state.range;
  }
  function scaled(factor) {
    const [low, high] = state.range || span();
    const centre = cursor === null ? (low + high) / 2 : cursor;
    zoom([centre - (centre - low) * factor, centre + (high - centre) * factor]);
  }
  function key(event, chart) {
    const [low, high] = state.range || span();
    const by = (high - low) / (event.shiftKey ? 10 : 100);
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const from = cursor === null ? high : cursor;
      cursor = Math.min(high, Math.max(low, from + (event.key === "ArrowLeft" ? -by : by)));
      at(cursor, null);
      shared.look(stepAt(cursor), heard);
    } else if (event.key === "+" || event.key === "=") scaled(0.5);
    else if (event.key === "-") scaled(2);
    else if (event.key === "0" || event.key === "Escape") zoom(null);
    else return;
    event.preventDefault();
  }

  const whole = element("button", { type: "button", disabled: true, onclick: () => zoom(null) }, "Whole run");
  const where = element("output", { "aria-live": "polite" });
  function controls() {
    const host = document.querySelector("[data-controls=curves]");
    const pressed = (text, on, act) => {
      const made = element("button", { type: "button", "aria-pressed": String(on()), onclick: () => {
        act();
        for (const each of host.querySelectorAll("button")) if (each.update) each.update();
        redraw();
      } }, text);
      made.update = () => made.setAttribute("aria-pressed", String(on()));
      return made;
    };
    const across = element("fieldset", {}, element("legend", {}, "Across"));
    const by = (name) => pressed(name === "step" ? "steps" : "epochs", () => state.by === name, () => { state.by = name; state.range = null; cursor = null; whole.disabled = true; });
    if (runs.every((run) => run.epoch)) across.append(by("step"), by("epoch"));
    across.append(pressed("log", () => state.logX, () => { state.logX = !state.logX; }));
    host.append(across);
    if (windows.length > 1 && charts.some((chart) => chart.smooth)) {
      const said = element("output");
      const tell = () => {
        said.textContent = state.smooth ? `exponential mean over about ${show(state.smooth)} steps${several ? ", at most a tenth of a run" : ""} (raw drawn pale)` : "off: drawn as recorded";
      };
      const slider = element("input", {
        type: "range", min: 0, max: windows.length - 1, value: windows.indexOf(state.smooth), "aria-label": "Smoothing",
        oninput: () => { state.smooth = windows[+slider.value]; tell(); redraw(); },
      });
      tell();
      host.append(element("label", {}, "Smoothing", slider, said));
    }
    host.append(whole, where);
  }
  // A new chart has its scales only when uPlot's own microtask has run; the cursor is put after that.
  function redraw(some = charts) {
    for (const chart of some) draw(chart);
    queueMicrotask(() => at(cursor, null));
  }
  function heard(what) {
    if (what === "runs" || what === "theme") redraw();
    else if (what === "step") {
      if (shared.step === null) cursor = null;
      else {
        const run = runs[0], place = Math.max(0, upTo(run.step, shared.step));
        cursor = state.by === "step" ? shared.step : run.epoch && run.epoch.length ? run.epoch[place] : null;
      }
      at(cursor, null);
    }
  }

  controls();
  for (const chart of charts) {
    const caption = chart.figure.querySelector("figcaption");
    const scale = element("button", {
      type: "button", "aria-pressed": String(chart.log), title: "Logarithmic scale; values of zero and below are left out",
      onclick: () => { chart.log = !chart.log; scale.setAttribute("aria-pressed", String(chart.log)); redraw([chart]); },
    }, "log");
    caption.append(scale);
    chart.readout = element("ul", { class: "readout" });
    chart.host = element("div", { class: "plot", tabindex: 0, role: "group", onkeydown: (event) => key(event, chart),
      "aria-label": `${chart.title}, a chart; arrow keys move the cursor, plus and minus zoom, 0 shows the whole run` });
    chart.figure.append(chart.readout, chart.host);
  }
  redraw();
  shared.listeners.push(heard);
  let waiting = 0;
  new ResizeObserver(() => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => {
      for (const chart of charts) {
        const width = Math.max(200, chart.host.clientWidth);
        if (chart.plot.width !== width) chart.plot.setSize({ width, height: chart.plot.height });
      }
    });
  }).observe(document.querySelector(".charts.large"));
})();
