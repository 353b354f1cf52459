/* Draws the figures of a report from its data with Observable Plot: SVG whose colours are the page's, light or dark. */
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const COLOURS = {
  running: "var(--still)", finished: "var(--done)", converged: "var(--good)", stopped: "var(--ended)", diverged: "var(--bad)",
  waiting: "var(--line)",
};
const FIGURE = data.figure.replaceAll("_", " ");
const at = new Map(data.points.network.map((network, place) => [network, place]));
const ranked = data.points.network.filter((network, place) => data.points.rank[place] !== null);
const middle = ranked[at.size ? nearest(ranked.map((network) => data.points.rank[at.get(network)]), (data.points.rank.filter(Boolean).at(-1) + 1) / 2) : 0];
let picked = null;

/** The place of the number among `numbers` that is nearest to `value`. */
function nearest(numbers, value) {
  return numbers.reduce((best, each, place) => (Math.abs(each - value) < Math.abs(numbers[best] - value) ? place : best), 0);
}

/** A number to be read: four digits, and no zeros behind. */
function shown(value) {
  if (value === null || value === undefined) return "none";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size && (size < 1e-3 || size >= 1e6)) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

/** A tick of an axis. */
function tick(value) {
  const size = Math.abs(value);
  if (size && (size < 1e-3 || size >= 1e7)) return value.toExponential(0).replace("e+", "e");
  return value.toLocaleString("en", { maximumSignificantDigits: 6 });
}

/** The name of a group: a range, or a value, whose digits tell it from others if it is whole. */
function label(value) {
  if (Number.isSafeInteger(value)) return value.toLocaleString("en");
  return Array.isArray(value) ? value.map(shown).join(" to ") : shown(value);
}

/** The options of an axis. On a logarithmic one, of these values, powers of ten alone have ticks, or also twice and five
times them. */
function axis(log, name, values = [], more = {}) {
  if (!log) return { label: name, tickFormat: tick, nice: true, ticks: 5, ...more };
  const known = values.filter((each) => each > 0), low = Math.min(...known), high = Math.max(...known);
  const ticks = [], first = Math.floor(Math.log10(low)), step = Math.ceil((Math.log10(high) - first) / 8);
  for (let power = first; power <= Math.log10(high); power += step) {
    for (const times of high / low > 150 ? [1] : [1, 2, 5]) ticks.push(Number(`${times}e${power}`));
  }
  return { type: "log", label: name, tickFormat: tick, ticks: ticks.filter((each) => each >= low / 1.001 && each <= high * 1.001), ...more };
}

function isWide(values) {
  const known = values.filter((each) => each !== null && Number.isFinite(each));
  return known.length > 0 && Math.min(...known) > 0 && Math.max(...known) > 10 * Math.min(...known);
}

function tip(items, options = {}) {
  return Plot.tip(items, Plot.pointer({ x: "x", y: "y", title: "title", fill: "var(--raised)", stroke: "var(--line)", ...options }));
}

function chart(host, options) {
  const width = Math.max(280, host.clientWidth);
  return Plot.plot({
    width, height: Math.min(300, Math.round(width * 0.62)), marginLeft: 56, marginBottom: 38, grid: true,
    style: { background: "transparent", color: "inherit" }, ...options,
  });
}

function legend(entries) {
  const made = document.createElement("div");
  made.className = "legend";
  for (const [name, colour] of entries) {
    const entry = document.createElement("span"), mark = document.createElement("i");
    mark.style.background = colour;
    entry.append(mark, name);
    made.append(entry);
  }
  return made;
}

const DRAW = {
  bands(host) {
    const { at: places, panels } = data.bands, key = host.dataset.key, panel = panels[key];
    const best = key === "metric" ? "max" : "min";
    const rows = places.map((x, place) => ({ x, y: panel.median[place], ...Object.fromEntries(Object.keys(panel).map((name) => [name, panel[name][place]])) }));
    const known = rows.filter((row) => row.median !== null);
    for (const row of known) {
      row.title = `${data.clock} ${shown(row.x)}\nmedian ${shown(row.median)}\nhalf ${shown(row.q25)} to ${shown(row.q75)}\n80 % ${shown(row.q10)} to ${shown(row.q90)}\nbest ${shown(row[best])}`;
    }
    const losses = Object.keys(panels).filter((name) => name !== "metric");
    const log = key !== "metric" && losses.some((name) => isWide([...panels[name].min, ...panels[name].q90]));
    return [chart(host, {
      x: axis(false, data.clock), y: axis(log, null, known.flatMap((row) => [row[best], row.q90])),
      marks: [
        Plot.areaY(known, { x: "x", y1: "q10", y2: "q90", fill: "var(--accent)", fillOpacity: 0.16 }),
        Plot.areaY(known, { x: "x", y1: "q25", y2: "q75", fill: "var(--accent)", fillOpacity: 0.24 }),
        Plot.lineY(known, { x: "x", y: "median", stroke: "var(--accent)", strokeWidth: 2 }),
        Plot.lineY(known, { x: "x", y: best, stroke: "var(--good)", strokeWidth: 1.5, strokeDasharray: "5 3" }),
        ...(known.length < 3 ? [Plot.dot(known, { x: "x", y: "median", fill: "var(--accent)" })] : []),
        Plot.ruleX(known, Plot.pointerX({ x: "x", stroke: "var(--quiet)" })),
        tip(known, { maxRadius: Infinity }),
      ],
    })];
  },

  statuses(host) {
    const { at: places, counts } = data.statuses, names = Object.keys(counts);
    const rows = names.flatMap((name) => places.map((x, place) => ({ x, count: counts[name][place], name })));
    const total = places.map((_, place) => names.reduce((sum, name) => sum + counts[name][place], 0));
    const items = places.map((x, place) => ({ x, y: total[place], title: `${data.clock} ${shown(x)}\n` + names.map((name) => `${shown(counts[name][place])} ${name}`).join("\n") }));
    const mark = places.length > 1 ? Plot.areaY : Plot.barY;
    return [chart(host, {
      x: places.length > 1 ? axis(false, data.clock) : { label: data.clock, type: "band" }, y: axis(false, null),
      marks: [
        mark(rows, { x: "x", y: "count", fill: (row) => COLOURS[row.name] ?? "var(--quiet)", z: "name", order: names, fillOpacity: 0.8 }),
        ...(places.length > 1 ? [Plot.ruleX(items, Plot.pointerX({ x: "x", stroke: "var(--quiet)" }))] : []),
        tip(items, { maxRadius: Infinity }),
      ],
    }), legend(names.map((name) => [name, COLOURS[name] ?? "var(--quiet)"]))];
  },

  curves(host) {
    const chosen = [["best", ranked[0], "var(--good)"], ["median", middle, "var(--quiet)"], ["worst", ranked.at(-1), "var(--bad)"], ["picked", picked, "var(--accent)"]];
    const lines = [], items = [], entries = [], seen = new Set();
    for (const [name, network, colour] of chosen) {
      const curve = data.curves[network];
      if (curve === undefined || (name !== "picked" && seen.has(network))) continue;
      seen.add(network);
      entries.push([`${name}: network ${shown(network)}`, colour]);
      const width = name === "picked" ? 2.5 : 1.8;
      curve.slice(1).forEach((values, part) => {
        const what = curve.length > 2 && part === 1 ? "validation loss" : "training loss";
        const dashed = curve.length > 2 && part === 0;
        const knots = values.map((y, place) => ({ x: curve[0][place], y, network })).filter((each) => each.y !== null);
        lines.push(Plot.line(knots, { x: "x", y: "y", stroke: colour, strokeWidth: dashed ? 1 : width, strokeDasharray: dashed ? "4 3" : null, marker: knots.length < 3 ? "dot" : null }));
        for (const each of knots) items.push({ ...each, title: `network ${shown(network)} (${name})\nstep ${shown(each.x)}\n${what} ${shown(each.y)}` });
      });
    }
    table(chosen.filter(([, network]) => data.curves[network] !== undefined));
    const log = isWide(items.map((each) => each.y));
    return [chart(host, { height: 340, x: axis(false, "training step"), y: axis(log, "loss", items.map((each) => each.y)), marks: [...lines, tip(items, { maxRadius: Infinity })] }), legend(entries)];
  },

  histogram(host) {
    const { edges, counts, log } = data.histogram;
    const rows = counts.map((count, place) => ({ low: edges[place], high: edges[place + 1], count }));
    const items = rows.map((row) => ({ x: log ? Math.sqrt(row.low * row.high) : (row.low + row.high) / 2, y: row.count, title: `${label([row.low, row.high])}\n${shown(row.count)} networks` }));
    return [chart(host, {
      x: axis(log, FIGURE, edges), y: axis(false, "networks"),
      marks: [Plot.rect(rows, { x1: "low", x2: "high", y1: 0, y2: "count", fill: "var(--accent)", fillOpacity: 0.6, insetLeft: 0.5, insetRight: 0.5 }), Plot.ruleY([0]), tip(items, { maxRadius: 60 })],
    })];
  },

  effect(host) {
    const effect = data.effects[Number(host.dataset.key)], column = data.points.columns[effect.name];
    const rows = data.points.network.map((network, place) => ({ network, value: column[place], figure: data.points.figure[place], rank: data.points.rank[place] }));
    const good = rows.filter((row) => row.figure !== null && row.value !== null), lost = rows.filter((row) => row.figure === null && row.value !== null);
    const finite = (row) => row.value !== "inf"; // which has no place on an axis
    return effect.numbers ? ofNumbers(host, effect, good.filter(finite), lost.filter(finite)) : ofTexts(host, effect, good);
  },

  pair(host) {
    const [one, other] = data.pair.names, log = data.log;
    const rows = data.pair.groups.map((group) => ({ x: label(group.values[1]), y: label(group.values[0]), median: group.median, networks: group.networks }));
    for (const row of rows) row.title = `${one} ${row.y}\n${other} ${row.x}\nmedian ${shown(row.median)}\n${shown(row.networks)} networks`;
    const known = rows.filter((row) => row.median !== null), values = known.map((row) => (log ? Math.log(row.median) : row.median));
    const low = Math.min(...values), high = Math.max(...values);
    known.forEach((row, place) => { row.good = 0.06 + 0.54 * (data.less ? high - values[place] : values[place] - low) / (high - low || 1); });
    const few = (value) => (Array.isArray(value) ? value.map((each) => shown(Number(each.toPrecision(2)))).join("–") : shown(value));
    const order = (place) => [...data.pair.groups].map((group) => group.values[place]).sort(before);
    const names = [0, 1].map((place) => new Map(order(place).map((value) => [label(value), few(value)])));
    const [down, across] = names.map((each) => 7 * Math.max(...[...each.values()].map((name) => name.length)));
    return [chart(host, {
      grid: false, marginLeft: 38 + down, marginBottom: 34 + 0.75 * across, opacity: { type: "identity" },
      x: { domain: [...names[1].keys()], tickFormat: (name) => names[1].get(name), label: other, tickRotate: -45, tickSize: 0 },
      y: { domain: [...names[0].keys()], tickFormat: (name) => names[0].get(name), label: one, reverse: data.effects[0].numbers, tickSize: 0 },
      height: 90 + 26 * names[0].size + 0.75 * across,
      marks: [
        Plot.cell(known, { x: "x", y: "y", fill: "var(--accent)", fillOpacity: "good", inset: 0.5 }),
        ...(host.clientWidth > 50 * names[1].size + down ? [Plot.text(known, { x: "x", y: "y", text: (row) => shown(Number(row.median.toPrecision(3))), fill: "var(--text)", fontSize: 10 })] : []),
        tip(known),
      ],
    })];
  },

  matrix(host) {
    const { labels, counts } = data.predictions[Number(host.dataset.key)].matrix;
    const rows = labels.flatMap((actual, row) => labels.map((predicted, place) => {
      const all = counts[row].reduce((sum, each) => sum + each, 0);
      return { x: place, y: row, count: counts[row][place], right: row === place, part: all ? counts[row][place] / all : 0,
        title: `actual ${actual}\npredicted ${predicted}\n${shown(counts[row][place])} of ${shown(all)}` };
    })).filter((row) => row.count);
    const named = (place) => { const name = labels[place]; return name.length > 12 ? `${name.slice(0, 11)}…` : name; };
    const longest = Math.max(...labels.map((_, place) => named(place).length)), turned = longest * labels.length > 40;
    const room = 20 + 7 * longest, width = Math.min(460, Math.max(280, host.clientWidth));
    const across = { domain: labels.map((_, place) => place), tickFormat: named };
    return [Plot.plot({
      width, height: width * 0.85, marginLeft: room + 16, marginBottom: turned ? room + 16 : 40, style: { background: "transparent", color: "inherit" },
      x: { ...across, label: "predicted", tickSize: 0, tickRotate: turned ? -60 : 0 }, y: { ...across, label: "actual", tickSize: 0 }, opacity: { type: "identity" },
      marks: [
        Plot.cell(rows, { x: "x", y: "y", fill: (row) => (row.right ? "var(--accent)" : "var(--bad)"), fillOpacity: (row) => 0.08 + 0.52 * row.part, inset: 0.5 }),
        ...(labels.length <= 20 ? [Plot.text(rows, { x: "x", y: "y", text: (row) => shown(row.count), fill: "var(--text)", fontSize: 11 })] : []),
        tip(rows),
      ],
    })];
  },

  residuals(host) {
    const target = data.predictions[Number(host.dataset.key)].targets[Number(host.dataset.place)];
    const rows = target.predicted.map((x, place) => ({ x, y: target.residual[place] })).filter((row) => row.x !== null && row.y !== null);
    for (const row of rows) row.title = `predicted ${shown(row.x)}\nactual ${shown(row.x - row.y)}\nresidual ${shown(row.y)}`;
    return [chart(host, {
      x: axis(false, "predicted"), y: axis(false, "predicted less actual"),
      marks: [
        Plot.ruleY([0], { stroke: "var(--quiet)" }),
        Plot.ruleY([target.quantiles[0], target.quantiles[4]].filter((each) => each !== null), { stroke: "var(--warm)", strokeDasharray: "4 3" }),
        Plot.dot(rows, { x: "x", y: "y", r: 2.5, fill: "var(--accent)", fillOpacity: 0.5 }), tip(rows),
      ],
    }), legend([["nine of ten lie between the dashed lines", "var(--warm)"]])];
  },

  rate(host) {
    const rows = data.statuses.seconds.map((x, place) => ({ x, y: data.statuses.rate[place] }));
    for (const row of rows) row.title = `after ${shown(row.x)} s\n${shown(row.y)} network-steps/s`;
    return [chart(host, { height: 200, x: axis(false, "seconds"), y: axis(false, null, [], { zero: true }), marks: [Plot.lineY(rows, { x: "x", y: "y", stroke: "var(--accent)" }), tip(rows, { maxRadius: Infinity })] })];
  },
};

/** Numbers and ranges before texts, then infinity, none last. */
function before(one, other) {
  const place = (value) => (value === null ? Infinity : value === "inf" ? Number.MAX_VALUE : Array.isArray(value) ? value[0] : typeof value === "number" ? value : 0);
  return place(one) - place(other) || 0;
}

function said(row, name) {
  return `network ${shown(row.network)}${row.rank === null ? "" : `, rank ${shown(row.rank)}`}\n${name} ${shown(row.value)}\n${row.figure === null ? "diverged" : `${FIGURE} ${shown(row.figure)}`}`;
}

function of(group, name) {
  return `${name} ${label(group.values[0])}\nmedian ${shown(group.median)}\nmean ${shown(group.mean)}${group.error === null ? "" : ` ± ${shown(group.error)}`}\n${shown(group.networks)} networks, ${shown(group.diverged)} diverged`;
}

function ofNumbers(host, effect, good, lost) {
  const between = ([low, high]) => (effect.log ? Math.sqrt(low * high) : (low + high) / 2);
  const marginal = effect.groups.filter((group) => group.values[0] !== null && group.values[0] !== "inf" && group.median !== null)
    .filter((group) => Array.isArray(group.values[0]) || group.networks > 1) // else the network itself
    .map((group) => ({ x: Array.isArray(group.values[0]) ? between(group.values[0]) : group.values[0], y: group.median, title: of(group, effect.name) }));
  const items = [...good.map((row) => ({ x: row.value, y: row.figure, network: row.network, title: said(row, effect.name) })), ...marginal];
  const height = Math.min(300, Math.round(Math.max(280, host.clientWidth) * 0.62));
  return [chart(host, {
    height, x: axis(effect.log, effect.name, [...good, ...lost].map((row) => row.value)), y: axis(data.log, FIGURE, good.map((row) => row.figure)), marks: [
      Plot.dot(good, { x: "value", y: "figure", r: 2.2, fill: "var(--accent)", fillOpacity: 0.4 }),
      Plot.ruleX(lost, { x: "value", stroke: "var(--bad)", strokeOpacity: 0.8, insetBottom: height - 66 }),
      Plot.line(marginal, { x: "x", y: "y", stroke: "var(--warm)", strokeWidth: 2 }),
      Plot.dot(marginal, { x: "x", y: "y", r: 3.5, fill: "var(--warm)" }),
      tip(items),
    ],
  })];
}

function ofTexts(host, effect, good) {
  const names = effect.groups.map((group) => label(group.values[0])), known = new Set(names);
  const rows = good.map((row) => ({ ...row, x: row.figure, y: label(row.value), title: said(row, effect.name) })).filter((row) => known.has(row.y));
  const medians = effect.groups.filter((group) => group.median !== null).map((group) => ({ x: group.median, y: label(group.values[0]), title: of(group, effect.name) }));
  const short = (name) => (name.length > 20 ? `${name.slice(0, 19)}…` : name), longest = Math.max(...names.map((name) => short(name).length));
  return [chart(host, {
    height: Math.max(150, 60 + 30 * names.length), marginLeft: 20 + 6.5 * longest, x: axis(data.log, FIGURE, rows.map((row) => row.x)), y: { domain: names, label: null, tickFormat: short, type: "band", padding: 0.25 },
    marks: [
      Plot.tickX(rows, { x: "x", y: "y", stroke: "var(--accent)", strokeOpacity: 0.45 }),
      Plot.tickX(medians, { x: "x", y: "y", stroke: "var(--warm)", strokeWidth: 3 }),
      tip([...rows, ...medians]),
    ],
  })];
}

/** The learning curves that are drawn, as a table. */
function table(chosen) {
  const host = document.getElementById("numbers"), made = document.createElement("table");
  const row = (cells, kind, scope) => {
    const line = made.insertRow();
    cells.forEach((text) => {
      const cell = document.createElement(kind);
      cell.textContent = text;
      if (scope) cell.scope = scope;
      else cell.className = "number";
      line.append(cell);
    });
  };
  row(["network", "step", "training loss", "validation loss"], "th", "col");
  for (const [name, network] of chosen) {
    const [steps, loss, validation] = data.curves[network], most = Math.min(6, steps.length);
    for (let each = 0; each < most; each += 1) {
      const place = most > 1 ? Math.round((each * (steps.length - 1)) / (most - 1)) : 0;
      row([`${network} (${name})`, shown(steps[place]), shown(loss[place]), validation ? shown(validation[place]) : ""], "td");
    }
  }
  host.replaceChildren(made);
}

function draw(host) {
  const made = DRAW[host.dataset.draw](host);
  host.replaceChildren(...made);
  host.drawn = made[0];
  host.drawn.setAttribute("aria-hidden", "true"); // its host is an image that says what it is
  mark(host);
}

/** A ring around the picked network in a figure of a setting. */
function mark(host) {
  if (host.dataset.draw !== "effect" || picked === null) return;
  host.querySelector(".ring")?.remove();
  const effect = data.effects[Number(host.dataset.key)], place = at.get(picked), value = data.points.columns[effect.name][place];
  if (data.points.figure[place] === null || value === null) return;
  const scale = (name, given) => { const found = host.drawn.scale(name); return found.apply(given) + (found.bandwidth ?? 0) / 2; };
  const [x, y] = effect.numbers ? [scale("x", value), scale("y", data.points.figure[place])] : [scale("x", data.points.figure[place]), scale("y", label(value))];
  if (!Number.isFinite(x) || !Number.isFinite(y)) return;
  const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  for (const [name, given] of Object.entries({ class: "ring", cx: x, cy: y, r: 6, fill: "none", stroke: "var(--text)", "stroke-width": 2 })) ring.setAttribute(name, given);
  host.drawn.append(ring);
}

function pick(network) {
  picked = network;
  const place = at.get(network), select = document.getElementById("pick");
  select.value = String(network);
  const told = data.effects.map((effect) => `${effect.name} ${shown(data.points.columns[effect.name][place])}`);
  document.getElementById("picked").textContent = `network ${shown(network)}: ` + [data.points.rank[place] === null ? "diverged" : `rank ${shown(data.points.rank[place])}, ${FIGURE} ${shown(data.points.figure[place])}`, ...told].join(", ");
  for (const host of document.querySelectorAll("[data-draw]")) {
    if (host.dataset.draw === "curves") draw(host);
    else mark(host);
  }
}

const hosts = [...document.querySelectorAll("[data-draw]")], select = document.getElementById("pick");
if (select) {
  const options = data.points.network.filter((network) => data.curves[network] !== undefined).map((network) => {
    const place = at.get(network), option = document.createElement("option");
    option.value = String(network);
    option.textContent = data.points.rank[place] === null ? `${network}, diverged` : `${network}, rank ${shown(data.points.rank[place])}`;
    return option;
  });
  select.append(...options);
  select.addEventListener("change", () => pick(Number(select.value)));
  document.addEventListener("click", (event) => {
    const host = event.target.closest?.("[data-draw=effect]"), network = host?.drawn.value?.network;
    if (network !== undefined && data.curves[network] !== undefined) pick(network);
  });
  if (options.length) picked = Number(options[Math.min(1, options.length - 1)].value);
}
let width = 0;
function fit() {
  if (document.documentElement.clientWidth === width) return;
  width = document.documentElement.clientWidth;
  hosts.forEach(draw);
  if (picked !== null) pick(picked);
}
fit();
new ResizeObserver(fit).observe(document.documentElement);
