// The workers' timeline on one canvas. Per pixel it adds up the time of each owner and stacks it, so that a slow
// phase shows at full width; where a span is wider than a few pixels it is drawn as itself.
(() => {
  "use strict";
  const canvas = document.getElementById("timeline");
  const packed = window.pipeprof.data.timeline;
  if (!canvas || !packed) return;

  const ABSENT = 0xFFFFFFFF, IDLE = 127, NEW_SAMPLE = 128, ROW = 20, GAP = 9, TOP = 26, LABELS = 84;
  const WIDE = 60; // pixels from which on a batch shows its single spans; narrower ones their sums, as all others do
  const raw = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const read = {};
  const kinds = { epoch: Uint32Array, slowest_index: Float64Array, worker: Int16Array };
  const column = (value, Kind, count) => typeof value === "number" ? new Kind(count).fill(value) : new Kind(raw(value));
  const stages = packed.stages, K = Math.max(1, stages.length), N = packed.kept, ms = packed.unit_ns / 1e6;
  for (const [name, value] of Object.entries(packed.batches)) read[name] = column(value, kinds[name] || Uint32Array, name === "sums" ? N * K : N);
  const loop = { masked: packed.colours.masked, wait: packed.colours.wait, copy: packed.colours.copy, compute: packed.colours.compute };
  const few = packed.spans;
  const spans = few && {
    batch: column(few.batch, Uint32Array, few.batches), first: column(few.first, Uint32Array, few.batches + 1),
    length: column(few.length, Uint16Array, few.count), stage: column(few.stage, Uint8Array, few.count),
    sample: column(few.sample, few.wide ? Float64Array : Int32Array, few.samples),
  };
  const perUnit = 1000 / packed.unit_ns; // spans count whole microseconds
  const spansOf = new Map();
  const samplesBefore = [];
  if (spans) {
    let seen = 0, at = 0;
    spans.batch.forEach((batch, i) => {
      spansOf.set(batch, i);
      samplesBefore.push(seen);
      for (; at < spans.first[i + 1]; at++) if (spans.stage[at] >= NEW_SAMPLE) seen++;
    });
  }
  const bins = packed.bins && { count: packed.bins.count, workers: column(packed.bins.workers, Uint8Array, 0), device: column(packed.bins.device, Uint8Array, 0) };

  // Rows: the main loop, the device where it was observed, then each worker with its batches in order of start.
  const order = (time) => [...Array(N).keys()].filter((i) => read[time][i] !== ABSENT).sort((a, b) => read[time][a] - read[time][b]);
  const rows = [{ kind: "main", label: "main loop", batches: order("request") }];
  const hasDevice = read.compute_start.some((t) => t !== ABSENT);
  // Where no device was seen the loop's body stands for its work: from taking a batch to asking for the next.
  const asked = new Uint32Array(N).fill(ABSENT);
  if (!hasDevice) rows[0].batches.forEach((i, n) => {
    const next = rows[0].batches[n + 1];
    if (next !== undefined && read.step[next] === read.step[i] + 1 && read.epoch[next] === read.epoch[i]) asked[i] = read.request[next];
  });
  if (hasDevice) rows.push({ kind: "device", label: "device", batches: order("compute_start") });
  for (const lane of packed.lanes || []) rows.push({
    kind: "lane", label: lane.label, names: lane.names, batches: [], from: column(lane.from, Uint32Array, lane.count),
    to: column(lane.to, Uint32Array, lane.count), name: column(lane.name, Uint8Array, lane.count),
  });
  const byStart = order("start");
  packed.workers.forEach((worker, index) => {
    const own = byStart.filter((i) => read.worker[i] === worker && read.finish[i] !== ABSENT);
    rows.push({ kind: "worker", index, label: worker < 0 ? "in main" : `worker ${worker}`, batches: own });
  });

  const whole = { from: 0, to: packed.length };
  let view = { ...whole }, hits = [], chosen = -1, dpr = 1, width = 0;
  const height = TOP + rows.length * (ROW + GAP);
  canvas.style.height = `${height}px`;
  const g = canvas.getContext("2d");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const x = (t) => LABELS + (t - view.from) / (view.to - view.from) * (width - LABELS);

  function ms_(units) {
    const value = units * ms;
    if (value >= 1000) return `${(value / 1000).toPrecision(3)} s`;
    return value >= 1 ? `${value.toPrecision(3)} ms` : `${(value * 1000).toPrecision(3)} µs`;
  }

  // What a row shows of one batch, as [from, to, colour, ink, label] or, where the order inside was not
  // kept, as one stack of the stages' sums.
  function segments(row, i) {
    const step = read.step[i];
    if (row.kind === "main") return [ // of a wait, the device still works first: no stall
      [read.request[i], read.felt[i], loop.masked, `next() #${step}`, null],
      [read.felt[i], read.take[i], loop.wait, `wait #${step}`, null],
      [read.take[i], asked[i], loop.compute, `loop #${step}`, null],
    ];
    if (row.kind === "device") return [
      [read.copy_start[i], read.copy_end[i], loop.copy, `copy #${step}`, null],
      [read.compute_start[i], read.compute_end[i], loop.compute, `compute #${step}`, null],
    ];
    const place = spansOf.get(i);
    if (place === undefined || x(read.finish[i]) - x(read.start[i]) < WIDE) {
      const shares = [];
      for (let k = 0; k < stages.length; k++) shares.push(read.sums[i * K + k]);
      return [[read.start[i], read.finish[i], null, `batch #${step}`, shares]];
    }
    const out = [];
    let at = read.start[i], sample = samplesBefore[place] - 1;
    for (let j = spans.first[place]; j < spans.first[place + 1]; j++) {
      const code = spans.stage[j] & IDLE, until = at + spans.length[j] * perUnit;
      if (spans.stage[j] >= NEW_SAMPLE) sample++;
      if (code !== IDLE && stages[code]) {
        const of = sample >= samplesBefore[place] ? spans.sample[sample] : null;
        out.push([at, until, stages[code], `${stages[code].label} #${step}`, null, of]);
      }
      at = until;
    }
    return out;
  }

  // The first of a row's batches that may reach into the view: batches of one row hardly overlap.
  function firstIn(row) {
    const end = row.kind === "main" ? "take" : row.kind === "device" ? "compute_end" : "finish";
    let low = 0, high = row.batches.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (read[end][row.batches[middle]] < view.from) low = middle + 1; else high = middle;
    }
    return Math.max(0, low - 1);
  }

  function drawRow(row, top) {
    const columns = Math.ceil(width - LABELS), unit = (view.to - view.from) / (width - LABELS);
    const palette = row.kind === "worker" ? stages : row.kind === "main" ? [loop.wait, loop.masked, loop.compute] : [loop.copy, loop.compute];
    const level = new Float32Array(columns * palette.length);
    let last = -1;
    const covered = bins ? new Uint8Array(columns) : null;
    const add = (from, to, which, weight) => {
      const a = Math.max(0, (from - view.from) / unit), b = Math.min(columns, (to - view.from) / unit);
      for (let c = Math.floor(a); c < b; c++) level[c * palette.length + which] += weight * (Math.min(b, c + 1) - Math.max(a, c));
    };
    for (let n = firstIn(row); n < row.batches.length; n++) {
      const i = row.batches[n];
      const list = segments(row, i);
      if (list.length && list[0][0] > view.to && row.kind !== "device") break;
      if (covered) cover(covered, row, i, unit, columns);
      for (const [from, to, paint, label, shares, sample] of list) {
        if (from === ABSENT || to === ABSENT || to <= from || to < view.from || from > view.to) continue;
        const left = x(from), right = x(to);
        if (right - left >= 1 || Math.floor(left) !== last) hits.push({ left: Math.max(left, LABELS), right: Math.max(right, left + 1), top, row, batch: i, label, from, to, sample });
        last = Math.floor(left);
        if (shares) {
          const total = Math.max(to - from, shares.reduce((a, b) => a + b, 0));
          shares.forEach((share, k) => { if (share) add(from, to, k, share / total); });
        } else if (right - left < 3) {
          add(from, to, palette.indexOf(paint), 1);
        } else {
          box(Math.max(left, LABELS), Math.min(right, width), top, paint, label);
        }
      }
    }
    if (bins) fromBins(row, level, palette.length, covered, unit, columns);
    stack(level, palette, columns, top);
  }

  // Parts of steps and kernels: boxes with names, in order of time, one above the other where they overlap.
  function drawLane(row, top) {
    let last = -1;
    for (let n = 0; n < row.from.length; n++) {
      if (row.to[n] < view.from || row.from[n] > view.to) continue;
      const left = Math.max(x(row.from[n]), LABELS), right = Math.max(Math.min(x(row.to[n]), width), left + 1);
      if (right - left <= 1 && Math.floor(left) === last) continue;
      last = Math.floor(left);
      const paint = row.names[row.name[n]];
      hits.push({ left, right, top, row, batch: -1, label: paint.label, from: row.from[n], to: row.to[n] });
      box(left, right, top, paint, paint.label);
    }
  }

  // Only stretches whose single batches were kept hide the bins beneath them.
  function cover(covered, row, i, unit, columns) {
    const from = Math.min(read.start[i], read.request[i]), to = Math.max(read.finish[i] === ABSENT ? 0 : read.finish[i], read.take[i]);
    const a = Math.max(0, Math.floor((from - view.from) / unit)), b = Math.min(columns, Math.ceil((to - view.from) / unit));
    covered.fill(1, Math.min(a, columns), Math.max(0, b));
  }

  function fromBins(row, level, count, covered, unit, columns) {
    const size = packed.length / bins.count;
    for (let c = 0; c < columns; c++) {
      if (covered[c]) continue;
      const bin = Math.floor((view.from + (c + 0.5) * unit) / size);
      if (bin < 0 || bin >= bins.count) continue;
      for (let k = 0; k < count; k++) {
        if (row.kind === "main" && (k === 1 || (k === 2 && hasDevice))) continue; // sums are of what was felt
        const value = row.kind === "worker" ? bins.workers[(row.index * K + k) * bins.count + bin]
          : row.kind === "main" ? bins.device[(k === 0 ? 2 : 0) * bins.count + bin] : bins.device[(k === 0 ? 1 : 0) * bins.count + bin];
        level[c * count + k] = value / 255;
      }
    }
  }

  function stack(level, palette, columns, top) {
    for (let c = 0; c < columns; c++) {
      let base = top + ROW, sum = 0;
      for (let k = 0; k < palette.length; k++) sum += level[c * palette.length + k];
      const scale = sum > 1 ? 1 / sum : 1;
      for (let k = 0; k < palette.length; k++) {
        const tall = level[c * palette.length + k] * scale * ROW;
        if (tall < 0.02) continue;
        base -= tall;
        g.fillStyle = palette[k].colour;
        g.fillRect(LABELS + c, base, 1, tall + 0.3);
      }
    }
  }

  function box(left, right, top, paint, label) {
    g.fillStyle = paint.colour;
    g.fillRect(left, top, right - left - (right - left > 4 ? 0.7 : 0), ROW);
    if (right - left < g.measureText(label).width + 10) return; // a text is whole or not there
    g.save();
    g.beginPath();
    g.rect(left + 4, top, right - left - 8, ROW);
    g.clip();
    g.fillStyle = paint.ink;
    g.fillText(label, left + 5, top + ROW / 2 + 0.5);
    g.restore();
  }

  function axis() {
    const span = (view.to - view.from) * packed.unit_ns, wanted = Math.max(2, (width - LABELS) / 130);
    let tick = 10 ** Math.floor(Math.log10(span / wanted));
    tick *= [1, 2, 5, 10].find((m) => span / (tick * m) <= wanted);
    const places = Math.max(0, -Math.floor(Math.log10(tick / 1e9) + 1e-9));
    g.fillStyle = css("--soft");
    for (let t = Math.ceil(view.from * packed.unit_ns / tick) * tick; t <= view.to * packed.unit_ns; t += tick) {
      const at = x(t / packed.unit_ns);
      g.fillRect(at, TOP - 6, 1, 4);
      const text = `${(t / 1e9).toFixed(places)} s`;
      if (at + g.measureText(text).width + 4 < width) g.fillText(text, at + 3, 9);
    }
  }

  function draw() {
    dpr = devicePixelRatio || 1;
    width = canvas.clientWidth;
    if (!width) return;
    canvas.width = Math.round(width * dpr);
    canvas.height = Math.round(height * dpr);
    g.setTransform(dpr, 0, 0, dpr, 0, 0);
    g.clearRect(0, 0, width, height);
    g.font = "12px system-ui, 'DejaVu Sans', sans-serif";
    g.textBaseline = "middle";
    hits = [];
    axis();
    rows.forEach((row, r) => {
      const top = TOP + r * (ROW + GAP);
      g.fillStyle = css("--idle");
      g.fillRect(LABELS, top, width - LABELS, ROW);
      if (row.kind === "lane") drawLane(row, top); else drawRow(row, top);
      g.fillStyle = css("--soft");
      g.fillText(row.label, 0, top + ROW / 2, LABELS - 6);
    });
    mark();
  }

  function mark() {
    if (chosen < 0) return;
    g.strokeStyle = css("--ink");
    g.lineWidth = 2;
    for (const hit of hits) if (hit.batch === chosen) g.strokeRect(hit.left, hit.top - 1.5, Math.max(2, Math.min(hit.right, width) - hit.left - 1), ROW + 3);
  }

  let pending = false;
  function soon() {
    if (pending) return;
    pending = true;
    requestAnimationFrame(() => { pending = false; draw(); });
  }

  function show(from, to) {
    const span = Math.min(Math.max(to - from, 10000 / packed.unit_ns), whole.to);
    const start = Math.min(Math.max(from, 0), whole.to - span);
    view = { from: start, to: start + span };
    canvas.dataset.view = `${Math.round(view.from)} ${Math.round(view.to)}`;
    soon();
  }
  const zoom = (factor, at = (view.from + view.to) / 2) => show(at - (at - view.from) * factor, at + (view.to - at) * factor);
  const move = (share) => show(view.from + share * (view.to - view.from), view.to + share * (view.to - view.from));

  function describe(hit) {
    const i = hit.batch, lines = [];
    if (!hit.label.startsWith("batch #")) lines.push(`${hit.label}: ${ms_(hit.to - hit.from)}`); // what follows says it
    if (i < 0) return lines;
    if (hit.sample !== null && hit.sample !== undefined) lines.push(`sample ${hit.sample} of the data set`);
    lines.push(`step ${read.step[i]}, epoch ${read.epoch[i]}, batch ${read.seq[i]}: ${read.samples[i]} samples`);
    const maker = read.worker[i] >= 0 ? `made by worker ${read.worker[i]}` : "made";
    if (read.finish[i] === ABSENT) lines.push(maker);
    else lines.push(`${maker} in ${ms_(read.finish[i] - read.start[i])}, in next() for ${ms_(read.take[i] - read.request[i])}, waited for ${ms_(read.take[i] - read.felt[i])}`);
    const parts = stages.map((s, k) => [s.label, read.sums[i * K + k]]).filter((p) => p[1]).map((p) => `${p[0]} ${ms_(p[1])}`);
    if (parts.length) lines.push(parts.join(", "));
    if (read.slowest_index[i] >= 0) lines.push(`slowest sample: ${read.slowest_index[i]}` + (read.slowest[i] !== ABSENT ? `, ${ms_(read.slowest[i])}` : "") + (packed.files[i] ? `, ${packed.files[i]}` : ""));
    return lines;
  }

  const tip = document.getElementById("timeline-tip"), says = document.getElementById("timeline-says");
  const invitation = tip.textContent;
  function point(hit) { // below the rows, which it would hide where the pointer is
    tip.textContent = hit ? describe(hit).join("\n") : invitation;
  }
  const under = (px, py) => hits.findLast((h) => py >= h.top && py < h.top + ROW && px >= h.left && px <= h.right);

  let dragged = null;
  canvas.addEventListener("pointerdown", (event) => { dragged = { at: event.offsetX, ...view, moved: false }; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    if (!dragged) { point(under(event.offsetX, event.offsetY)); return; }
    const by = (dragged.at - event.offsetX) / (width - LABELS) * (dragged.to - dragged.from);
    dragged.moved ||= Math.abs(dragged.at - event.offsetX) > 3;
    if (dragged.moved) { point(null); show(dragged.from + by, dragged.to + by); }
  });
  canvas.addEventListener("pointerup", (event) => {
    if (dragged && !dragged.moved) {
      const hit = under(event.offsetX, event.offsetY);
      chosen = hit ? hit.batch : -1;
      says.textContent = hit ? describe(hit).join("; ") : "";
      point(hit);
      soon();
    }
    dragged = null;
  });
  canvas.addEventListener("pointerleave", () => { if (!dragged) point(null); });
  canvas.addEventListener("dblclick", () => show(whole.from, whole.to));
  // A bare wheel scrolls the page; it zooms with Ctrl, or when the timeline has been clicked and has the focus.
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== canvas) return;
    event.preventDefault();
    const at = view.from + (event.offsetX - LABELS) / (width - LABELS) * (view.to - view.from);
    zoom(event.deltaY > 0 ? 1.3 : 1 / 1.3, at);
  }, { passive: false });

  // Walk from batch to batch in the order of steps, keeping the zoom, and say what it was.
  function walk(by) {
    const list = rows[0].batches, here = list.indexOf(chosen);
    const visible = list.findIndex((i) => read.take[i] >= view.from);
    const next = here < 0 ? visible : here + by;
    if (next < 0 || next >= list.length) return;
    chosen = list[next];
    const from = read.request[chosen], half = (view.to - view.from) / 2;
    if (from < view.from || from > view.to) show(from - half, from + half);
    draw();
    const hit = hits.find((h) => h.batch === chosen && h.row.kind === "worker") || hits.find((h) => h.batch === chosen);
    if (!hit) return;
    point(hit);
    says.textContent = describe(hit).join("; ");
  }

  const moves = { left: () => move(-0.25), right: () => move(0.25), in: () => zoom(0.5), out: () => zoom(2) };
  const keys = {
    "+": moves.in, "=": moves.in, "-": moves.out, ArrowLeft: moves.left, ArrowRight: moves.right,
    Home: () => show(whole.from, whole.to), ",": () => walk(-1), ".": () => walk(1),
    Escape: () => { chosen = -1; point(null); soon(); },
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  for (const button of document.querySelectorAll("[data-move]")) button.addEventListener("click", () => moves[button.dataset.move]());

  function addJumps() {
    const jumps = document.getElementById("jumps");
    const all = [{ label: "Whole run", from: whole.from, to: whole.to, step: null }, ...packed.jumps];
    for (const jump of all) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = jump.label;
      button.addEventListener("click", () => {
        chosen = jump.step === null ? -1 : rows[0].batches.find((i) => read.step[i] === jump.step) ?? -1;
        point(null);
        show(jump.from, jump.to);
      });
      jumps.append(button);
    }
  }

  function addLegend() {
    const legend = document.getElementById("timeline-legend");
    const parts = (packed.lanes || []).filter((lane) => lane.legend).flatMap((lane) => lane.names.slice(0, -1));
    for (const item of [...stages, ...(packed.masked ? [loop.masked] : []), loop.wait, ...(hasDevice ? [loop.copy] : []), loop.compute, ...parts]) {
      const entry = document.createElement("li"), swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = item.colour;
      entry.append(swatch, item.label);
      legend.append(entry);
    }
  }

  addJumps();
  addLegend();
  document.getElementById("timeline-note").textContent = packed.note;
  new ResizeObserver(soon).observe(canvas);
  document.addEventListener("pipeprof:themed", soon);
  document.addEventListener("pipeprof:printed", draw); // at once: a printer waits for no frame
  show(whole.from, whole.to);
  draw();
  canvas.dataset.ready = "yes";
})();
