"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const root = document.documentElement;
  const SVG = "http://www.w3.org/2000/svg";

  // Elements are filled with text, never with markup, as names of files may contain anything.
  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  };

  // Light and dark

  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const theme = $("theme");
  const themed = () => { theme.textContent = isDark() ? "Light" : "Dark"; theme.title = "Change the colours"; };
  theme.hidden = false;
  themed();

  // The list of errors

  const filter = $("filter");
  if (filter) {
    const rows = [...document.querySelectorAll("#errors .list tbody tr")];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    filter.addEventListener("input", () => {
      const wanted = filter.value.toLowerCase();
      let shown = 0;
      rows.forEach((row, i) => { row.hidden = !texts[i].includes(wanted); shown += !row.hidden; });
      $("filtered").textContent = wanted ? `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")}` : "";
    });
  }

  const stage = document.querySelector(".map");
  if (!stage) {
    theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; themed(); });
    system.addEventListener("change", themed);
    return;
  }
  stage.hidden = false;

  // The map

  const plot = $("plot"), canvas = $("canvas"), tip = $("tip"), legend = $("legend"), audio = $("audio");
  const context = canvas.getContext("2d");
  const count = data.names.length;
  const state = { layout: 0, colour: 0, scale: 1, x: 0, y: 0, over: -1, chosen: -1, shown: new Set() };
  let width = 1, height = 1, css = {}, waiting = false;

  const SCALES = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const scaled = (t) => {
    const at = Math.min(0.9999, Math.max(0, t)) * (SCALES.length - 1), i = Math.floor(at), f = at - i;
    return `rgb(${SCALES[i].map((v, k) => Math.round(v + (SCALES[i + 1][k] - v) * f)).join(" ")})`;
  };
  const colours = () => data.colours[state.colour];
  const colourOf = (code) => (colours().others && code === colours().classes.length - 1 ? css.soft : css.class[code % 10]);
  const shapeOf = (code) => Math.floor(code / 10) % 4;

  const readColours = () => {
    const style = getComputedStyle(root), read = (name) => style.getPropertyValue(name).trim();
    css = { ink: read("--ink"), soft: read("--soft"), line: read("--line"), back: read("--back"), card: read("--card") };
    css.class = Array.from({ length: 10 }, (_, i) => read(`--c${i}`));
  };

  const trace = (path, shape, x, y, r) => {
    if (shape === 0) { path.moveTo(x + r, y); path.arc(x, y, r, 0, 7); return; }
    const corners = shape === 1 ? [[-.9, -.9], [.9, -.9], [.9, .9], [-.9, .9]]
      : shape === 2 ? [[0, -1.2], [1.15, .9], [-1.15, .9]] : [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]];
    corners.forEach(([a, b], i) => path[i ? "lineTo" : "moveTo"](x + a * r, y + b * r));
    path.closePath();
  };

  const boxes = data.layouts.map(({ points }) => {
    const box = [Infinity, Infinity, -Infinity, -Infinity];
    points.forEach((value, i) => {
      if (value === null) return;
      box[i % 2] = Math.min(box[i % 2], value);
      box[2 + i % 2] = Math.max(box[2 + i % 2], value);
    });
    return box;
  });
  const place = (i) => {
    const points = data.layouts[state.layout].points, x = points[2 * i], y = points[2 * i + 1];
    if (x === null) return null;
    const [left, low, right, high] = boxes[state.layout];
    const across = (width - 90) / Math.max(1, right - left), up = (height - 56) / Math.max(1, high - low);
    const fit = Math.min(across, 1.6 * up), fitUp = Math.min(up, 1.6 * across);
    return [
      width / 2 - 20 + ((x - (left + right) / 2) * fit + state.x) * state.scale,
      height / 2 + (((low + high) / 2 - y) * fitUp + state.y) * state.scale,
    ];
  };
  const isShown = (i) => !state.shown.size || !colours().codes || state.shown.has(colours().codes[i]);
  const radius = () => Math.min(7, (count > 2000 ? 3.1 : count > 400 ? 3.6 : 4.6) * Math.sqrt(Math.min(1, width / 650)) * Math.pow(state.scale, .3));

  const draw = () => {
    waiting = false;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const r = radius(), way = colours(), groups = new Map(), faint = new Path2D();
    for (let i = 0; i < count; i++) {
      const at = place(i);
      if (!at || at[0] < -9 || at[1] < -9 || at[0] > width + 9 || at[1] > height + 9) continue;
      if (!isShown(i)) { trace(faint, 0, at[0], at[1], r * .7); continue; }
      let key, shape = 0;
      if (way.codes) { key = way.codes[i]; shape = shapeOf(key); }
      else key = way.values[i] === null ? -1 : Math.round(31 * (way.values[i] - way.low) / (way.high - way.low));
      if (!groups.has(key)) groups.set(key, new Path2D());
      trace(groups.get(key), shape, at[0], at[1], r);
    }
    context.globalAlpha = .3;
    context.fillStyle = css.soft;
    context.fill(faint);
    context.globalAlpha = .88;
    context.lineWidth = .8;
    context.strokeStyle = css.back;
    for (const [key, path] of groups) {
      context.fillStyle = way.codes ? colourOf(key) : key < 0 ? css.soft : scaled(key / 31);
      context.fill(path);
      if (count < 1500 || state.scale > 2) context.stroke(path);
    }
    context.globalAlpha = 1;
    for (const [i, extra] of [[state.over, 3], [state.chosen, 5]]) {
      const at = i < 0 ? null : place(i);
      if (!at) continue;
      context.beginPath();
      context.arc(at[0], at[1], r + extra, 0, 7);
      context.lineWidth = 2.5;
      context.strokeStyle = css.ink;
      context.stroke();
    }
  };
  const redraw = () => { if (!waiting) { waiting = true; requestAnimationFrame(draw); } };

  const nearest = (x, y, reach) => {
    let best = -1, least = reach * reach;
    for (let i = 0; i < count; i++) {
      const at = isShown(i) && place(i);
      if (!at) continue;
      const d = (at[0] - x) ** 2 + (at[1] - y) ** 2;
      if (d < least) { least = d; best = i; }
    }
    return best;
  };

  const seconds = (s) => s < 60 ? `${s.toFixed(s < 10 ? 2 : 1)} s` : `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
  const group = (i) => {
    const way = colours();
    if (way.codes) return way.classes.length > 1 ? `${way.name}: ${way.classes[way.codes[i]]}` : "";
    return way.values[i] === null ? "" : `${way.name}: ${way.values[i]}`;
  };
  const facts = (i) => {
    const windows = data.windows[i], part = data.parts && data.parts[i];
    return [
      part ? `segment from ${part[0] === null ? 0 : part[0]} s` + (part[1] === null ? "" : ` to ${part[1]} s`) : "",
      data.seconds[i] === null ? "" : seconds(data.seconds[i]),
      data.pooled ? "" : windows === 1 ? "1 window" : `${windows} windows`,
      group(i),
    ].filter(Boolean).join(" · ");
  };

  const over = (i, x, y) => {
    if (i !== state.over) { state.over = i; redraw(); }
    plot.classList.toggle("point", i >= 0);
    tip.hidden = i < 0;
    if (i < 0) return;
    tip.replaceChildren(make("div", data.names[i]), make("span", facts(i)));
    const box = tip.getBoundingClientRect();
    const left = Math.max(6, Math.min(x + 14, width - box.width - 6));
    const top = y + 18 + box.height > height ? Math.max(6, y - box.height - 12) : y + 18;
    tip.style.transform = `translate(${left}px, ${top}px)`;
  };

  const WHY = {
    1: "The file was not found when this page was made.",
    2: "The file is inside another file, which a browser cannot open.",
    3: "The file is at an address that a browser cannot open.",
  };
  const choose = (i, play) => {
    state.chosen = i;
    redraw();
    $("chosen").hidden = i < 0;
    audio.pause();
    if (i < 0) { audio.removeAttribute("src"); return; }
    $("name").textContent = data.names[i];
    $("facts").textContent = facts(i);
    $("said").textContent = `${data.names[i]}, ${facts(i)}`;
    const url = data.sounds[i], reachable = typeof url === "string";
    audio.hidden = !reachable;
    $("trouble").textContent = reachable ? "" : WHY[url];
    if (!reachable) { audio.removeAttribute("src"); return; }
    const part = data.parts && data.parts[i];
    const bounds = part ? `#t=${part[0] === null ? 0 : part[0]}` + (part[1] === null ? "" : `,${part[1]}`) : "";
    audio.src = url + bounds;
    if (play) audio.play().catch(() => {}); // the error handler below shows the reason
  };
  audio.addEventListener("error", () => {
    if (!audio.getAttribute("src")) return;
    $("trouble").textContent = "Your browser cannot reach or play this file.";
  });

  const frame = (i) => { // brings a point into view
    const at = place(i);
    if (!at || (at[0] > 20 && at[1] > 20 && at[0] < width - 20 && at[1] < height - 20)) return;
    state.x += (width / 2 - 20 - at[0]) / state.scale;
    state.y += (height / 2 - at[1]) / state.scale;
  };

  const zoom = (factor, x = width / 2, y = height / 2) => {
    const scale = Math.min(60, Math.max(.6, state.scale * factor));
    state.x += (x - width / 2 + 20) * (1 / scale - 1 / state.scale);
    state.y += (y - height / 2) * (1 / scale - 1 / state.scale);
    state.scale = scale;
    over(-1);
    redraw();
  };
  const all = () => { state.scale = 1; state.x = state.y = 0; over(-1); redraw(); };
  $("in").addEventListener("click", () => zoom(1.5));
  $("out").addEventListener("click", () => zoom(1 / 1.5));
  $("all").addEventListener("click", all);

  // Pointers: one pointer drags, two pointers pinch

  const pointers = new Map();
  let moved = 0;
  const local = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, local(event));
    if (pointers.size === 1) moved = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = local(event), before = pointers.get(event.pointerId);
    if (!before) { if (event.pointerType !== "touch") over(nearest(x, y, radius() + 7), x, y); return; }
    if (pointers.size === 1) {
      moved += Math.hypot(x - before[0], y - before[1]);
      if (moved > 4) {
        plot.classList.add("drag");
        over(-1);
        state.x += (x - before[0]) / state.scale;
        state.y += (y - before[1]) / state.scale;
        redraw();
      }
    } else {
      moved = 99;
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const gap = (a) => Math.max(1, Math.hypot(a[0] - other[0], a[1] - other[1]));
      zoom(gap([x, y]) / gap(before), (x + other[0]) / 2, (y + other[1]) / 2);
    }
    pointers.set(event.pointerId, [x, y]);
  });
  const release = (event) => {
    const was = pointers.delete(event.pointerId);
    if (!pointers.size) plot.classList.remove("drag");
    if (event.type !== "pointerup" || !was || moved > 4) return;
    const [x, y] = local(event), i = nearest(x, y, radius() + (event.pointerType === "touch" ? 16 : 7));
    choose(i, true);
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => { if (!pointers.size) over(-1); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? .05 : .0015)), ...local(event));
  }, { passive: false });

  // Keys

  const step = (dx, dy) => {
    const from = state.chosen < 0 ? null : place(state.chosen);
    let best = -1, least = Infinity;
    if (!from) best = nearest(width / 2, height / 2, 1e6);
    else for (let i = 0; i < count; i++) {
      const at = i !== state.chosen && isShown(i) && place(i);
      if (!at) continue;
      const along = (at[0] - from[0]) * dx + (at[1] - from[1]) * dy, across = Math.abs((at[0] - from[0]) * dy + (at[1] - from[1]) * dx);
      if (along > .01 && across <= along * 1.2 && along + 2 * across < least) { least = along + 2 * across; best = i; }
    }
    if (best >= 0) { choose(best, false); frame(best); }
  };
  const KEYS = {
    ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0), ArrowUp: () => step(0, -1), ArrowDown: () => step(0, 1),
    Enter: () => state.chosen >= 0 && choose(state.chosen, true), " ": () => state.chosen >= 0 && (audio.paused ? choose(state.chosen, true) : audio.pause()),
    "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: all, Escape: () => choose(-1, false),
  };
  plot.addEventListener("keydown", (event) => {
    if (event.target !== plot || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
    event.preventDefault();
    KEYS[event.key]();
  });

  // Legend and choices

  const swatch = (shape, colour) => {
    const svg = document.createElementNS(SVG, "svg"), path = document.createElementNS(SVG, "path");
    svg.setAttribute("viewBox", "-8 -8 16 16");
    svg.setAttribute("aria-hidden", "true");
    path.setAttribute("d", ["M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0", "M-5-5h10v10h-10z", "M0-6.5l6 11h-12z", "M0-7l7 7l-7 7l-7-7z"][shape]);
    path.setAttribute("fill", colour);
    svg.append(path);
    return svg;
  };
  const fillLegend = () => {
    const way = colours();
    legend.replaceChildren();
    legend.classList.toggle("some", state.shown.size > 0);
    $("legend-title").textContent = way.classes ? (way.classes.length > 1 ? `${way.name} · ${way.classes.length} kinds` : "all") : way.name;
    if (!way.classes) {
      const item = make("li"), scale = document.createElementNS(SVG, "svg"), ends = make("div", undefined, "ends");
      scale.setAttribute("viewBox", "0 0 32 1");
      scale.setAttribute("preserveAspectRatio", "none");
      scale.setAttribute("class", "scale");
      for (let i = 0; i < 32; i++) {
        const bar = document.createElementNS(SVG, "rect");
        for (const [name, value] of [["x", i], ["width", 1.05], ["height", 1], ["fill", scaled(i / 31)]]) bar.setAttribute(name, value);
        scale.append(bar);
      }
      ends.append(make("span", Number(way.low.toPrecision(4))), make("span", Number(way.high.toPrecision(4))));
      item.append(scale, ends);
      legend.append(item);
      return;
    }
    way.classes.forEach((label, code) => {
      const item = make("li"), button = make("button");
      button.type = "button";
      button.title = label;
      button.setAttribute("aria-pressed", String(state.shown.has(code)));
      button.append(swatch(shapeOf(code), colourOf(code)), make("span", label, "label"), make("span", way.counts[code].toLocaleString("en"), "count"));
      button.addEventListener("click", () => {
        if (!state.shown.delete(code)) state.shown.add(code);
        fillLegend();
        legend.querySelectorAll("button")[code].focus();
        redraw();
      });
      item.append(button);
      legend.append(item);
    });
  };
  const options = (select, names, key, then) => {
    names.forEach((name, i) => { const option = make("option", name); option.value = i; select.append(option); });
    select.addEventListener("change", () => { state[key] = Number(select.value); then(); over(-1); redraw(); });
  };
  options($("layout"), data.layouts.map((each) => each.name), "layout", all);
  options($("colour"), data.colours.map((each) => each.name), "colour", () => {
    state.shown.clear();
    fillLegend();
    if (state.chosen >= 0) $("facts").textContent = facts(state.chosen);
  });

  const lower = data.names.map((name) => name.toLowerCase()), found = $("found");
  $("find").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase(), hits = [];
    let more = 0;
    if (wanted) lower.forEach((name, i) => { if (name.includes(wanted)) { if (hits.length < 50) hits.push(i); else more++; } });
    found.hidden = !wanted;
    found.replaceChildren(...hits.map((i) => {
      const item = make("li"), button = make("button", data.names[i]);
      button.type = "button";
      button.addEventListener("click", () => { choose(i, true); frame(i); redraw(); });
      item.append(button);
      return item;
    }));
    if (wanted && (more || !hits.length)) found.append(make("li", more ? `and ${more.toLocaleString("en")} more` : "no such file on the map", "more"));
  });

  const repaint = () => { themed(); readColours(); fillLegend(); redraw(); };
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; repaint(); });
  system.addEventListener("change", repaint);
  new ResizeObserver(() => { width = plot.clientWidth || 1; height = plot.clientHeight || 1; redraw(); }).observe(plot);
  readColours();
  fillLegend();
})();
