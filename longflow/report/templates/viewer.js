// The viewer of a subject's page: a slider over the scans' times, a comparison by swipe and flicker, linked panes.
"use strict";
(() => {
  const page = JSON.parse(document.getElementById("page").textContent);
  const byId = (id) => document.getElementById(id);
  const frames = new Map(page.frames.map((frame) => [frame.id, frame]));
  // of one time, a predicted label map is shown before the scan with the labels of a rater
  const last = (frame) => Number(frame.kind !== "label map");
  const scans = page.frames.filter((frame) => frame.kind !== "difference").sort((a, b) => a.time - b.time || last(a) - last(b));
  // blue is lower, white is equal, red is higher: colour-blind readers tell them apart
  const DIFFERENCE = { R: [5, 247, 178], G: [48, 247, 24], B: [97, 247, 43], A: [255, 255, 255], I: [0, 127, 255] };
  const PLANES = { multi: 3, axial: 0, coronal: 1, sagittal: 2 };

  for (const button of document.querySelectorAll("button.save")) {
    button.addEventListener("click", () => {
      const table = page.tables[button.dataset.table];
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([table.csv], { type: "text/csv" }));
      link.download = table.file;
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }
  if (!scans.length) return;

  const webgl = (() => {
    try { return Boolean(document.createElement("canvas").getContext("webgl2")); } catch { return false; }
  })();
  byId("no-webgl").hidden = webgl;
  for (const element of [byId("voxel"), byId("intensity"), ...document.querySelectorAll(".webgl")]) element.hidden = !webgl;
  const channel = () => Number(byId("channel").value);
  const titleOf = (frame) => {
    const phase = frame.phase ? `, ${frame.phase}` : "";
    const kinds = { ...page.kinds, prediction: "PREDICTION", "label map": "PREDICTED LABELS", difference: "prediction minus acquired scan (blue: lower, red: higher)" };
    return `${frame.time} ${page.unit}${phase}: ${kinds[frame.kind]}, ${frame.case}`;
  };

  // ---- a pane: one canvas, or the strip of the middle planes where there is no WebGL
  class Pane {
    constructor(canvas) {
      this.canvas = canvas;
      this.phase = canvas.closest("figure").dataset.phase;
      this.strip = canvas.nextElementSibling;
      this.labels = this.strip.nextElementSibling;
      this.ticket = 0;
      this.images = new Map();
      this.frame = null;
      this.work = new Promise((begun) => { this.begun = begun; });
    }

    async start() {
      this.canvas.hidden = !webgl;
      if (webgl) await this.startViewer();
      this.begun();
    }

    async startViewer() {
      this.viewer = new niivue.Niivue({
        isRadiologicalConvention: true, isResizeCanvas: true, backColor: [0, 0, 0, 1], crosshairWidth: 0.3, crosshairWidthUnit: "percent",
        crosshairColor: [1, 0.7, 0.2, 1], multiplanarShowRender: 0, isNearestInterpolation: true, loadingText: "", dragMode: 0,
        logLevel: "error", dragAndDropEnabled: false, show3Dcrosshair: false,
      });
      await this.viewer.attachToCanvas(this.canvas);
      this.viewer.addColormap("difference", DIFFERENCE);
      this.viewer.setSliceType(PLANES[byId("planes").value]);
    }

    image(name, options) {
      if (!this.images.has(name)) {
        const base64 = byId(name).textContent;
        this.images.set(name, niivue.NVImage.loadFromBase64({ base64, name: `${name}.nii.gz`, ...options }));
      }
      return this.images.get(name);
    }

    // one after the other: a quick slider must not mix two scans; what was asked for meanwhile is left out
    show(frame) {
      this.frame = frame;
      const ticket = ++this.ticket;
      this.work = this.work.then(() => (ticket === this.ticket ? this.draw(frame) : null));
      return this.work;
    }

    async draw(frame) {
      const difference = frame.kind === "difference";
      const picture = (name) => `data:image/png;base64,${byId(name).textContent}`;
      this.strip.src = picture(frame.strips[channel()]);
      this.strip.alt = `Middle planes of ${titleOf(frame)}`;
      this.strip.style.filter = difference ? "" : "url(#levels)";
      if (frame.label_strip) this.labels.src = picture(frame.label_strip); else this.labels.removeAttribute("src");
      this.labels.style.opacity = opacity();
      this.strip.hidden = webgl;
      this.labels.hidden = webgl || !frame.label_strip;
      if (!webgl) return;
      const image = await this.image(frame.volumes[channel()], { colormap: difference ? "difference" : "gray" });
      const labels = frame.labels ? await this.image(frame.labels, {}) : null;
      // values up to the lower bound are not drawn, so that of differences is below the first level
      const range = difference ? 1.01 * frame.ranges[channel()] : 0;
      const window = difference ? { low: -range, high: range } : windowOf(frame);
      image.cal_min = window.low;
      image.cal_max = window.high;
      while (this.viewer.volumes.length) this.viewer.removeVolume(this.viewer.volumes.at(-1));
      this.viewer.addVolume(image);
      if (labels) {
        labels.setColormapLabel(page.labels);
        labels.opacity = opacity();
        this.viewer.addVolume(labels);
      }
      this.viewer.updateGLVolume();
      place();
    }
  }

  // ---- windows: presets by name, or two values of the reader; in strips, levels are mapped to a window by a filter
  let own = null;
  const opacity = () => Number(byId("opacity")?.value ?? 0);
  const windowOf = (frame) => {
    const found = page.windows[frame.modality][channel()];
    return own ?? found.find((one) => one.name === byId("window").value) ?? found[0];
  };
  const tellWindow = () => {
    const frame = scans[0];
    const { low, high } = windowOf(frame);
    byId("low").value = Number(low.toPrecision(4));
    byId("high").value = Number(high.toPrecision(4));
    const levels = page.levels[frame.modality][channel()];
    for (const map of document.querySelectorAll("#levels feComponentTransfer > *")) {
      map.setAttribute("slope", (levels.high - levels.low) / (high - low));
      map.setAttribute("intercept", (levels.low - low) / (high - low));
    }
  };
  const fillWindows = () => {
    const names = Object.values(page.windows).flatMap((channels) => channels[channel()].map((one) => one.name));
    byId("window").replaceChildren(...[...new Set(names)].map((name) => new Option(name, name)));
    own = null;
    tellWindow();
  };
  fillWindows();

  const series = [...document.querySelectorAll(".series canvas")].map((canvas) => new Pane(canvas));
  const compared = byId("comparison") ? { lower: new Pane(byId("lower")), upper: new Pane(byId("upper")) } : null;
  const panes = compared ? [...series, compared.lower, compared.upper] : series;

  // ---- the slider over true times
  const slider = byId("time");
  const times = scans.map((frame) => frame.time);
  let current = 0;
  slider.min = Math.min(...times);
  slider.max = Math.max(...times);
  const goTo = (index) => {
    current = index;
    const frame = scans[index];
    slider.value = frame.time;
    slider.setAttribute("aria-valuetext", titleOf(frame));
    for (const mark of document.querySelectorAll(".mark")) {
      const here = mark.dataset.case === frame.case && mark.dataset.kind === frame.kind;
      if (here) mark.setAttribute("aria-current", "true"); else mark.removeAttribute("aria-current");
    }
    return Promise.all(series.map((pane) => {
      // every contrast phase has a pane; those of other phases show their scan that is nearest in time
      const others = scans.filter((one) => paneOf(one) === pane);
      const shown = paneOf(frame) === pane ? frame : others.reduce((best, one) => (Math.abs(one.time - frame.time) < Math.abs(best.time - frame.time) ? one : best));
      pane.canvas.closest("figure").querySelector("figcaption").textContent = titleOf(shown);
      return pane.show(shown);
    }));
  };
  const paneOf = (frame) => series.find((pane) => pane.phase === frame.phase) ?? series[0];
  const nearest = (time) => times.reduce((best, other, index) => (Math.abs(other - time) < Math.abs(times[best] - time) ? index : best), 0);
  slider.addEventListener("input", () => goTo(nearest(Number(slider.value))));
  slider.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    goTo(Math.min(scans.length - 1, Math.max(0, current + step)));
  });
  for (const mark of document.querySelectorAll(".mark")) {
    mark.addEventListener("click", () => {
      const same = (frame) => frame.case === mark.dataset.case;
      const index = scans.findIndex((frame) => same(frame) && frame.kind === mark.dataset.kind);
      if (index >= 0 || scans.some(same)) goTo(index >= 0 ? index : scans.findIndex(same));
      const target = page.targets.findIndex((one) => one.case === mark.dataset.case);
      if (target >= 0) { byId("target").value = target; compare(); }
    });
  }

  // ---- buttons that switch something on and off, at most a few times a second
  const repeated = (button, milliseconds, step, ended = () => {}) => {
    let timer = null;
    button.addEventListener("click", () => {
      const starts = timer === null;
      button.setAttribute("aria-pressed", String(starts));
      if (starts) timer = setInterval(step, milliseconds);
      else { clearInterval(timer); timer = null; ended(); }
    });
  };
  repeated(byId("play"), 500, () => goTo((current + 1) % scans.length));

  // ---- forecast against acquired scan, last scan or difference
  let compare = () => {};
  if (compared) {
    const cover = byId("cover");
    const swipe = () => { cover.style.clipPath = `inset(0 0 0 ${byId("swipe").value}%)`; };
    compare = () => {
      const target = page.targets[Number(byId("target").value)];
      for (const option of byId("against").options) option.disabled = target[option.value] === null;
      if (byId("against").selectedOptions[0]?.disabled ?? true) {
        byId("against").value = [...byId("against").options].find((option) => !option.disabled)?.value ?? "";
      }
      const other = target[byId("against").value] ?? null;
      cover.hidden = other === null;
      const forecast = frames.get(target.forecast);
      byId("comparison-caption").textContent = other === null
        ? `${titleOf(forecast)}. There is nothing to compare it with.`
        : `Left: ${titleOf(forecast)}. Right: ${titleOf(frames.get(other))}`;
      const shown = [compared.lower.show(forecast)];
      if (other !== null) shown.push(compared.upper.show(frames.get(other)));
      return Promise.all(shown);
    };
    byId("target").addEventListener("change", compare);
    byId("against").addEventListener("change", compare);
    byId("swipe").addEventListener("input", swipe);
    repeated(byId("flicker"), 600, () => { cover.style.clipPath = ""; cover.classList.toggle("off"); },
      () => { cover.classList.remove("off"); swipe(); });
    swipe();
  }

  // ---- what holds for all panes
  const redraw = () => Promise.all(panes.filter((pane) => pane.frame).map((pane) => pane.show(pane.frame)));
  byId("channel").addEventListener("change", () => { fillWindows(); redraw(); });
  byId("window").addEventListener("change", () => { own = null; tellWindow(); redraw(); });
  for (const end of ["low", "high"]) {
    byId(end).addEventListener("change", () => {
      const [low, high] = [byId("low").valueAsNumber, byId("high").valueAsNumber];
      if (!(low < high)) { tellWindow(); return; }
      own = { low, high };
      byId("window").value = "";
      tellWindow();
      redraw();
    });
  }
  byId("opacity")?.addEventListener("input", redraw);
  const started = () => panes.filter((pane) => pane.viewer);
  // the crosshair stays where it is
  byId("zoom").addEventListener("input", () => {
    const zoom = Number(byId("zoom").value);
    for (const { viewer } of started()) {
      const [x, y, z] = viewer.frac2mm(viewer.scene.crosshairPos);
      viewer.setPan2Dxyzmm([-(zoom - 1) * x, -(zoom - 1) * y, -(zoom - 1) * z, zoom]);
    }
  });
  byId("planes").addEventListener("change", () => {
    for (const { viewer } of started()) viewer.setSliceType(PLANES[byId("planes").value]);
  });

  // the voxel under the crosshair in every pane: each pane tells of a move of the others, too
  const place = () => {
    const values = started().filter((pane) => pane.viewer.volumes.length).map((pane) => {
      const image = pane.viewer.volumes[0];
      // true: by the affine; else axes that are oblique are taken for those of the scanner
      const mm = Array.from(pane.viewer.frac2mm(pane.viewer.scene.crosshairPos, 0, true)).slice(0, 3);
      return { mm, text: `${image.getValue(...image.mm2vox(mm)).toPrecision(4)} (${titleOf(pane.frame)})` };
    });
    if (!values.length) return;
    const mm = values[0].mm.map((value) => value.toFixed(1)).join(", ");
    byId("place").textContent = `${mm} mm (right, anterior, superior): ${values.map((one) => one.text).join("; ")}`;
    drawIntensity(values[0].mm);
  };

  // ---- the value of the voxel under the crosshair in every scan; read only while the curve is open
  const intensity = byId("intensity");
  let pending = 0;
  const drawIntensity = async (mm) => {
    if (!intensity.open) return;
    const turn = ++pending;
    const points = [];
    for (const frame of scans.filter((one) => one.kind !== "label map" && one.modality === series[0].frame.modality)) {
      const image = await series[0].image(frame.volumes[channel()], { colormap: "gray" });
      if (turn !== pending) return; // the crosshair has moved on
      const voxel = image.mm2vox(mm);
      const inside = Array.from(voxel).every((index, axis) => index >= 0 && index < image.hdr.dims[axis + 1]);
      if (inside) points.push({ frame, value: image.getValue(...voxel) });
    }
    const shape = (name, attributes, text = "") => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      element.textContent = text;
      return element;
    };
    const span = (values) => { const low = Math.min(...values); return [low, Math.max(...values) - low || 1]; };
    const [firstTime, duration] = span(times);
    const [lowest, range] = span(points.map((point) => point.value));
    const x = (point) => 70 + (510 * (point.frame.time - firstTime)) / duration;
    const y = (point) => 140 - (120 * (point.value - lowest)) / range;
    const acquired = points.filter((point) => point.frame.kind === "acquired");
    const phases = [...new Set(acquired.map((point) => point.frame.phase))];
    const lines = phases.map((phase) => acquired.filter((point) => point.frame.phase === phase).map((point) => `${x(point).toFixed(1)},${y(point).toFixed(1)}`).join(" "));
    intensity.querySelector("svg").replaceChildren(
      ...lines.map((points) => shape("polyline", { points, class: "line" })),
      ...points.map((point) => {
        const dot = shape("circle", { cx: x(point), cy: y(point), r: 5, class: point.frame.kind });
        dot.append(shape("title", {}, `${titleOf(point.frame)}: ${point.value.toPrecision(4)}`));
        return dot;
      }),
      shape("text", { x: 64, y: 144, "text-anchor": "end" }, lowest.toPrecision(4)),
      shape("text", { x: 64, y: 24, "text-anchor": "end" }, (lowest + range).toPrecision(4)),
      shape("text", { x: 70, y: 165 }, String(firstTime)),
      shape("text", { x: 580, y: 165, "text-anchor": "end" }, `${firstTime + duration} ${page.unit}`),
    );
  };
  intensity.addEventListener("toggle", () => { if (webgl) place(); });
  const link = () => {
    for (const pane of started()) {
      const others = started().filter((other) => other !== pane).map((other) => other.viewer);
      pane.viewer.broadcastTo(others, { "2d": true, "3d": false });
      pane.viewer.onLocationChange = () => requestAnimationFrame(place);
    }
  };

  // a viewer takes a second of a slow computer to start: the slider works before the comparison does
  const begin = async (these, show) => {
    for (const pane of these) await pane.start();
    link();
    await show();
    if (webgl) place();
  };
  (async () => {
    const state = document.documentElement.dataset;
    await begin(series, () => goTo(0));
    state.interactive = "true";
    await begin(panes.slice(series.length), compare);
    state.ready = webgl ? "webgl" : "strips";
    window.longflowPanes = panes;
  })();
})();
