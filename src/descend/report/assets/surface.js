(() => {
  const space = "http://www.w3.org/2000/svg";
  function draw(name, attributes, ...children) {
    const made = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }
  const several = content.runs.length > 1;

  function view(host, figure, id) {
    const flat = figure.dims === 1;
    const paths = figure.paths.map((path) => ({ ...path, step: unpack(path.step), at: 0, colour: `var(${colourName(path.run)})` }));
    const steps = paths.length ? Math.max(...paths.map((path) => path.step[path.step.length - 1])) : 0;
    const full = padded(figure.window, flat);
    let shown = full, now = 0, playing = 0;
    const margin = { right: 14, top: 12, bottom: 40 };
    const svg = draw("svg", { role: "img", "aria-label": `The loss over ${figure.names.join(" and ")} with the path of ${several ? "each run" : "the run"}` });
    const plane = element("div", { class: "plane" }, svg), beside = element("div", { class: "beside" });
    host.append(plane, beside);

    function render() {
      const wide = Math.max(260, plane.clientWidth);
      const upward = ticks(shown[2], shown[3], 6).map((value) => show(value).length);
      margin.left = 30 + 7 * Math.max(...upward);
      const inner = wide - margin.left - margin.right;
      const [x0, x1, y0, y1] = shown;
      const ratio = flat ? 0.5 : (full[3] - full[2]) / (full[1] - full[0]);
      // One unit is as long on both axes where the window allows it: only then gradients stand upright on contours.
      const equal = !flat && ratio > 0.4 && ratio < 1.6;
      let high = flat || !equal ? Math.min(430, Math.max(230, inner * 0.5)) : inner * ratio;
      let width = inner;
      if (equal && high > 560) { width = inner * 560 / high; high = 560; }
      const X = (x) => margin.left + (x - x0) / (x1 - x0) * width;
      const Y = (y) => margin.top + high - (y - y0) / (y1 - y0) * high;
      const total = high + margin.top + margin.bottom;
      svg.setAttribute("viewBox", `0 0 ${wide} ${total}`);
      const clip = `clip-${id}`;
      const inside = draw("g", { "clip-path": `url(#${clip})` });
      svg.replaceChildren(
        draw("defs", {}, draw("clipPath", { id: clip }, draw("rect", { x: margin.left, y: margin.top, width, height: high }))),
        draw("rect", { class: "ground", x: margin.left, y: margin.top, width, height: high }),
        inside,
        draw("rect", { class: "frame", x: margin.left, y: margin.top, width, height: high }),
      );
      for (const value of ticks(x0, x1, Math.max(3, width / 110))) {
        svg.append(draw("text", { x: X(value), y: margin.top + high + 16, "text-anchor": "middle" }, show(value)));
      }
      for (const value of ticks(y0, y1, 6)) {
        svg.append(draw("text", { x: margin.left - 7, y: Y(value) + 4, "text-anchor": "end" }, show(value)));
      }
      svg.append(
        draw("text", { class: "name", x: margin.left + width / 2, y: total - 5, "text-anchor": "middle" }, figure.names[0]),
        draw("text", { class: "name", x: 12, y: margin.top + high / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${margin.top + high / 2})` }, flat ? "loss" : figure.names[1]),
      );
      if (flat) {
        const at = figure.curve.x.map((x, k) => (figure.curve.y[k] === null ? null : `${X(x).toFixed(1)} ${Y(figure.curve.y[k]).toFixed(1)}`));
        inside.append(draw("path", { class: "curve", d: at.map((point, k) => (point === null ? "" : (k && at[k - 1] !== null ? "L" : "M") + point)).join("") }));
      } else {
        for (const grid of figure.grids) ground(inside, grid, X, Y);
      }
      for (const path of paths) if (!shared.hidden.has(path.run)) trace(inside, path, X, Y, { x0, x1, y0, y1 });
      table();
    }

    function ground(inside, grid, X, Y) {
      const [a, b, c, d] = grid.window;
      const box = { x: X(a), y: Y(d), width: X(b) - X(a), height: Y(c) - Y(d) };
      inside.append(draw("rect", { class: "ground", ...box }));
      inside.append(draw("image", { ...box, href: grid.shade, preserveAspectRatio: "none" }));
      if (!grid.units) return;
      const sx = box.width / grid.units, sy = box.height / grid.units;
      const group = draw("g", { transform: `matrix(${sx} 0 0 ${-sy} ${box.x} ${box.y + box.height})` });
      for (const line of grid.lines) {
        group.append(draw("path", { class: `contour${line.bold ? " bold" : ""}`, d: line.d }, draw("title", {}, `loss ${show(line.level)}`)));
      }
      inside.append(group);
    }

    const height = (path, k) => (flat ? path.loss[k] : path.x[k][1]);
    function trace(inside, path, X, Y, window) {
      const there = (k) => path.x[k].every((v) => v !== null) && height(path, k) !== null;
      const spot = (k) => `${clamp(X(path.x[k][0])).toFixed(1)} ${clamp(Y(height(path, k))).toFixed(1)}`;
      const clamp = (v) => Math.max(-1e5, Math.min(1e5, v));
      const line = (from, to) => {
        let d = "", pen = "M";
        for (let k = from; k <= to; k += 1) {
          if (there(k)) { d += pen + spot(k); pen = "L"; } else pen = "M";
        }
        return d;
      };
      const last = path.step.length - 1, at = Math.max(0, upTo(path.step, now));
      path.at = at;
      const group = draw("g", { style: `--run:${path.colour}` });
      if (!flat) group.append(draw("path", { class: "halo", d: line(0, at) }));
      group.append(draw("path", { class: "trace ahead", d: line(at, last) }), draw("path", { class: "trace", d: line(0, at) }));
      const dot = (k, name, r) => there(k) && group.append(draw("circle", { class: name, cx: clamp(X(path.x[k][0])), cy: clamp(Y(height(path, k))), r }));
      if (flat) for (let k = 0; k <= Math.min(at, 80); k += 1) if (there(k) && k !== at) slopeLine(group, path, k, "slope", X, Y, (window.x1 - window.x0) * 0.03);
      if (last <= 400) for (let k = 0; k <= at; k += 1) dot(k, "dots", flat ? 3 : 2.1);
      dot(0, "start", 4.5);
      if (there(last)) {
        const cx = clamp(X(path.x[last][0])), cy = clamp(Y(height(path, last)));
        group.append(draw("path", { class: "end", d: `M${cx - 5} ${cy - 5}l10 10m0 -10l-10 10` }));
      }
      const slope = path.gradient[at];
      if (there(at) && slope && slope.length && slope.every((v) => v !== null)) {
        if (flat) slopeLine(group, path, at, "tangent", X, Y, (window.x1 - window.x0) * 0.16);
        else if (paths.length < 4) arrow(group, path, slope, X(path.x[at][0]), Y(height(path, at)), X(1) - X(0), Y(1) - Y(0));
      }
      dot(at, "now", 6);
      inside.append(group);
    }

    // A piece of the tangent through point k, `reach` long in units of x, or less where it is steep.
    function slopeLine(group, path, k, name, X, Y, reach) {
      const slope = path.gradient[k] && path.gradient[k][0];
      if (slope === null || slope === undefined) return;
      const across = X(1) - X(0), up = Y(slope) - Y(0), part = reach * across / Math.hypot(across, up);
      const x = X(path.x[k][0]), y = Y(path.loss[k]);
      group.append(draw("line", { class: name, x1: x - across * part, y1: y - up * part, x2: x + across * part, y2: y + up * part }));
    }

    // Against the gradient; its length shows the gradient's by its square root, 14 to 64 pixels.
    function arrow(group, path, slope, x, y, sx, sy) {
      const size = (g) => Math.hypot(...g);
      path.most ??= Math.max(...path.gradient.filter((g) => g.every((v) => v !== null)).map(size));
      const dx = -slope[0] * sx, dy = -slope[1] * sy, far = Math.hypot(dx, dy);
      if (!(far > 0 && size(slope) > path.most * 1e-4)) return;
      const length = 14 + 50 * Math.sqrt(size(slope) / path.most), ux = dx / far, uy = dy / far;
      const ex = x + ux * length, ey = y + uy * length;
      group.append(draw("line", { class: "arrow", x1: x, y1: y, x2: ex - ux * 6, y2: ey - uy * 6 }));
      group.append(draw("path", { class: "head", d: `M${ex} ${ey}L${ex - ux * 9 - uy * 4.5} ${ey - uy * 9 + ux * 4.5}L${ex - ux * 9 + uy * 4.5} ${ey - uy * 9 - ux * 4.5}Z` }));
    }

    // Where every run stands, in numbers.
    const list = element("ul", { class: "at" });
    function table() {
      list.replaceChildren(...paths.filter((path) => !shared.hidden.has(path.run)).map((path) => {
        const k = path.at, swatch = element("span", { class: "swatch" }), slope = path.gradient[k];
        swatch.style.setProperty("--run", path.colour);
        const item = (name, value) => element("span", {}, `${name} `, element("b", {}, value));
        return element("li", {}, swatch, several ? `${content.runs[path.run].label} · ` : "", `step ${show(path.step[k])}`,
          element("div", {}, ...figure.names.map((name, axis) => item(name, show(path.x[k][axis], 5))), item("loss", show(path.loss[k], 5))),
          slope && slope.length ? element("div", {}, item("gradient", slope.map((g) => show(g)).join(", "))) : "");
      }));
      said.textContent = `step ${show(now)} of ${show(steps)}`;
    }

    const said = element("output");
    const slider = element("input", { type: "range", min: 0, max: steps, value: 0, step: 1, "aria-label": "Step", oninput: () => go(+slider.value, true) });
    function go(step, tell) {
      now = Math.max(0, Math.min(steps, step));
      slider.value = now;
      render();
      if (tell) shared.look(now, heard);
    }
    const move = (by) => () => { stop(); go(now + by, true); };
    function stop() { clearInterval(playing); playing = 0; play.textContent = "Play"; play.setAttribute("aria-pressed", "false"); }
    const play = element("button", { type: "button", "aria-pressed": "false", onclick: () => {
      if (playing) return stop();
      if (now >= steps) go(0, true);
      const stride = Math.max(1, Math.round(steps / 240));
      play.textContent = "Pause";
      play.setAttribute("aria-pressed", "true");
      playing = setInterval(() => { go(now + stride, true); if (now >= steps) stop(); }, steps > 60 ? 50 : 160);
    } }, "Play");
    function zoomed(factor) {
      const path = paths.find((each) => !shared.hidden.has(each.run));
      const centre = path && path.x[path.at].every((v) => v !== null) ? [path.x[path.at][0], height(path, path.at)] : [(shown[0] + shown[1]) / 2, (shown[2] + shown[3]) / 2];
      const half = [(shown[1] - shown[0]) / 2 * factor, (shown[3] - shown[2]) / 2 * factor];
      if (half[0] * 2 >= full[1] - full[0]) shown = full;
      else shown = [centre[0] - half[0], centre[0] + half[0], centre[1] - half[1], centre[1] + half[1]];
      render();
    }
    plane.append(element("div", { class: "scrub" },
      element("button", { type: "button", onclick: move(-1), "aria-label": "One step back" }, "‹"), play,
      element("button", { type: "button", onclick: move(1), "aria-label": "One step on" }, "›"), slider, said,
      element("button", { type: "button", onclick: () => zoomed(0.5), "aria-label": "Zoom in around the current point" }, "+"),
      element("button", { type: "button", onclick: () => zoomed(2), "aria-label": "Zoom out" }, "−"),
      element("button", { type: "button", onclick: () => { shown = full; render(); } }, "Whole"),
    ));
    if (figure.scale) {
      beside.append(element("div", { class: "scale" }, "loss ", show(figure.scale[0], 3), element("i", { "aria-hidden": "true" }), show(figure.scale[figure.scale.length - 1], 3)));
    }
    beside.append(list);

    function heard(what) {
      if (what === "runs") render();
      else if (what === "step" && shared.step !== null) { if (!playing) go(shared.step, false); }
    }
    shared.listeners.push(heard);
    let before = 0;
    new ResizeObserver(() => { if (plane.clientWidth !== before) { before = plane.clientWidth; render(); } }).observe(plane);
    go(steps, false);
  }

  function padded([a, b, c, d], flat) {
    if (a === b) { a -= 1; b += 1; }
    const by = d > c ? (d - c) * 0.04 : 1;
    return flat ? [a, b, c - by, d + by] : [a, b, c, d === c ? c + 1 : d];
  }
  for (const host of document.querySelectorAll("[data-surface]")) {
    view(host, content.surfaces[+host.dataset.surface], host.dataset.surface);
  }
})();
