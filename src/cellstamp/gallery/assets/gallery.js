// Gallery of single-cell images: the front end of cellstamp.browse, in a notebook and on a page.
//
// It is one module without a build step, and loads nothing from a network. docs/design/gallery.md describes the
// messages. Sections: transports, small helpers, colours, tiles, grid, controls, dialog of a cell, gallery, entries.

// --- transports ------------------------------------------------------------------------------------------------------

// Both have one method: request(content) -> Promise of the reply, with its bytes as `buffers`.

/** Requests of a page, over HTTP. */
class PageTransport {
  async request(content) {
    let answer;
    try {
      answer = await fetch("message", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(content),
      });
    } catch {
      throw new Error("cellstamp has ended: run cellstamp browse again");
    }
    if (!answer.ok) throw new Error(await answer.text());
    return unpack(await answer.arrayBuffer());
  }
}

/** A reply is the length of its JSON (4 bytes), the JSON, and the buffers; see server.py. */
function unpack(bytes) {
  const length = new DataView(bytes).getUint32(0, true);
  const reply = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
  let start = 4 + length;
  reply.buffers = reply.buffers.map((size) => {
    const part = new Uint8Array(bytes, start, size);
    start += size;
    return part;
  });
  return reply;
}

/** Requests of a widget, over the connection of its notebook. */
class WidgetTransport {
  constructor(model) {
    this.model = model;
    this.waiting = new Map();
    this.number = 0;
    // Several views of one widget share a model: each ignores the replies to the others.
    this.prefix = Math.random().toString(36).slice(2);
    this.receive = (message, buffers) => {
      const done = this.waiting.get(message.number);
      if (!done) return;
      this.waiting.delete(message.number);
      done({ ...message.reply, buffers: buffers.map(asBytes) });
    };
    model.on("msg:custom", this.receive);
  }

  request(content) {
    const number = `${this.prefix}-${this.number++}`;
    return new Promise((resolve) => {
      this.waiting.set(number, resolve);
      this.model.send({ number, request: content });
    });
  }

  close() {
    this.model.off("msg:custom", this.receive);
  }
}

function asBytes(buffer) {
  if (buffer instanceof ArrayBuffer) return new Uint8Array(buffer);
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
}

// --- small helpers ---------------------------------------------------------------------------------------------------

/** Make an element: properties, attributes with a dash or of ARIA, and listeners (`onclick`). */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Replace the children of an element. If one of them has the focus, it goes to a successor, not to the document. */
function replace(parent, children, successor) {
  const hasFocus = parent.contains(parent.getRootNode().activeElement);
  parent.replaceChildren(...children);
  if (hasFocus) successor.focus({ preventScroll: true });
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const thousands = (number) => number.toLocaleString("en-US");
const plural = (number, noun) => `${thousands(number)} ${noun}${number === 1 ? "" : "s"}`;

/** A number for readers, with about four digits. */
const short = (number) => String(Number(number.toPrecision(4)));

let lastId = 0;
const newId = (what) => `csg-${what}-${++lastId}`;

// --- colours ---------------------------------------------------------------------------------------------------------

const GRAY = [255, 255, 255];

function rgbOf(hex) {
  return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
}

/** The byte of a value between the ends of a plane's range: the root of its place, as planes.py makes it. */
function byteOf(value, plane) {
  return Math.round(255 * Math.sqrt(clamp((value - plane.low) / (plane.high - plane.low), 0, 1)));
}

/** The value of a byte. */
const valueOf = (byte, plane) => plane.low + (byte / 255) ** 2 * (plane.high - plane.low);

/** The place of a byte between black and white of a cell. */
const percentOf = (byte) => `${Math.round(100 * (byte / 255) ** 2)}%`;

/** Brightness (0 to 1) of each byte, if bytes `black` and `white` are black and white. */
function brightnessOf(black, white) {
  const low = (black / 255) ** 2;
  const span = Math.max((white / 255) ** 2 - low, 1e-6);
  return Float32Array.from({ length: 256 }, (_, byte) => clamp(((byte / 255) ** 2 - low) / span, 0, 1));
}

/** The bytes of a cell at low and high quantiles: of all its pixels, and of those above 0 (masked pixels are 0). */
function rangeOfCell(bytes) {
  const counts = new Uint32Array(256);
  for (const byte of bytes) counts[byte]++;
  const quantile = (from, part) => {
    let left = 0;
    for (let byte = from; byte < 256; byte++) left += counts[byte];
    left *= part;
    for (let byte = from; byte < 256; byte++) if ((left -= counts[byte]) <= 0) return byte;
    return 255;
  };
  return [quantile(0, 0.001), Math.max(quantile(1, 0.999), 1)];
}

/** Bytes that are black and white in a cell: the sliders choose a part of the range of the cell. */
function limitsInCell(bytes, [black, white]) {
  const [low, high] = rangeOfCell(bytes).map((byte) => (byte / 255) ** 2);
  const place = (byte) => 255 * Math.sqrt(clamp(low + (byte / 255) ** 2 * (high - low), 0, 1));
  return [place(black), place(white)];
}

// --- tiles -----------------------------------------------------------------------------------------------------------

const HALF = Math.round(255 * Math.sqrt(0.5));
const scratch = document.createElement("canvas");
let light = new Float32Array(0);

/**
 * Paint a cell into a part of a canvas: its channels side by side, or one above the other in colours.
 *
 * part: {left, width, height}; tile: {bytes, side, planes}; look: see Gallery.look.
 */
function paintTile(canvas, { left, width, height }, tile, look) {
  const { side } = tile;
  const pictures = picturesOf(tile, look);
  const pixels = new ImageData(side * pictures.length, side);
  pictures.forEach((layers, number) => fill(pixels, number * side, side, layers));
  const context = canvas.getContext("2d");
  context.save();
  context.beginPath();
  context.rect(left, 0, width, height);
  context.clip();
  context.translate(left, 0);
  // Pixels that are enlarged stay squares, so that nothing is shown that was not measured.
  context.imageSmoothingEnabled = height < side;
  context.drawImage(asImage(pixels), 0, 0, width, height);
  if (look.outlines) paintOutlines(context, height, tile, look, pictures.length);
  context.restore();
}

/** Pixels as an image that can be drawn at another size, valid until the next call. */
function asImage(pixels) {
  // a new size clears a canvas, which takes as long as the rest
  if (scratch.width !== pixels.width) scratch.width = pixels.width;
  if (scratch.height !== pixels.height) scratch.height = pixels.height;
  scratch.getContext("2d", { willReadFrequently: true }).putImageData(pixels, 0, 0);
  return scratch;
}

/** The layers of each picture of a cell: bytes, brightness of each byte, and colour. */
function picturesOf(tile, look) {
  const area = tile.side ** 2;
  const layers = tile.planes.flatMap((number, place) => {
    if (look.planes[number].is_mask && !look.shown.includes(number)) return [];
    const bytes = tile.bytes.subarray(place * area, (place + 1) * area);
    const colour = look.mode === "gray" ? GRAY : look.colours[number];
    return [{ bytes, colour, brightness: look.brightness(number, bytes) }];
  });
  // without channels, the picture is black, and has the outlines
  return look.mode === "composite" || !layers.length ? [layers] : layers.map((layer) => [layer]);
}

/** Add layers of light, each in its colour: a picture of a width, at a place of pixels. */
function fill(pixels, left, width, layers) {
  const size = width * pixels.height;
  if (light.length === 3 * size) light.fill(0);
  else light = new Float32Array(3 * size);
  for (const { bytes, colour: [red, green, blue], brightness } of layers) {
    for (let from = 0, to = 0; from < size; from++, to += 3) {
      const bright = brightness[bytes[from]];
      if (bright === 0) continue; // most pixels of masked cells
      light[to] += bright * red;
      light[to + 1] += bright * green;
      light[to + 2] += bright * blue;
    }
  }
  const out = pixels.data;
  for (let y = 0, from = 0; y < pixels.height; y++) {
    let to = 4 * (y * pixels.width + left);
    for (let x = 0; x < width; x++, from += 3, to += 4) {
      // the array rounds, and clips at 255
      out[to] = light[from];
      out[to + 1] = light[from + 1];
      out[to + 2] = light[from + 2];
      out[to + 3] = 255;
    }
  }
}

function paintOutlines(context, height, tile, look, nPictures) {
  const { side } = tile;
  const scale = height / side;
  context.lineWidth = Math.max(1, Math.min(2, height / 90));
  tile.planes.forEach((number, place) => {
    if (!look.planes[number].is_mask) return;
    const lines = outlineOf(tile.bytes.subarray(place * side ** 2, (place + 1) * side ** 2), side);
    context.strokeStyle = look.planes[number].colour;
    context.beginPath();
    for (let picture = 0; picture < nPictures; picture++) {
      for (let at = 0; at < lines.length; at += 4) {
        context.moveTo((lines[at] + picture * side) * scale, lines[at + 1] * scale);
        context.lineTo((lines[at + 2] + picture * side) * scale, lines[at + 3] * scale);
      }
    }
    context.stroke();
  });
}

/** Lines between pixels inside and outside of a mask, as long as they are straight: x0, y0, x1, y1 of each in turn. */
function outlineOf(bytes, side) {
  const width = side + 2;
  const mask = new Uint8Array(width ** 2); // with a frame of pixels outside, where all lines end
  for (let y = 0, from = 0; y < side; y++) {
    for (let x = 0, to = (y + 1) * width + 1; x < side; x++) mask[to++] = bytes[from++] >= HALF;
  }
  const lines = [];
  const down = new Int16Array(side + 1).fill(-1); // where the line down that is being followed begins, by column
  for (let y = 0; y <= side; y++) {
    let across = -1;
    for (let x = 0, at = (y + 1) * width + 1; x <= side; x++, at++) {
      const isAcross = mask[at] !== mask[at - width];
      const isDown = mask[at] !== mask[at - 1];
      if (isAcross && across < 0) across = x;
      if (isDown && down[x] < 0) down[x] = y;
      if (!isAcross && across >= 0) {
        lines.push(across, y, x, y);
        across = -1;
      }
      if (!isDown && down[x] >= 0) {
        lines.push(x, down[x], x, y);
        down[x] = -1;
      }
    }
  }
  return lines;
}

// --- grid ------------------------------------------------------------------------------------------------------------

// Browsers limit the height of an element to 17 to 33 million pixels. Above this height, the scroll bar moves in
// larger steps than the cells: wheel and keys still move by what they say.
const MOST_HEIGHT = 12e6;
const GAP = 6;
const LABEL = 18;
const PER_REQUEST = 400;
const MOST_KEPT_BYTES = 96e6;

/** The scrolling grid. It holds the cells on the screen only, and asks for those that it lacks. */
class Grid {
  constructor(gallery) {
    this.gallery = gallery;
    this.total = 0;
    this.cursor = 0;
    this.anchor = 0;
    this.top = 0;
    this.direction = 1;
    this.tiles = new Map();
    this.rows = new Map();
    this.awaited = [];
    this.generation = 0;
    this.isAsking = false;
    this.selecting = Promise.resolve();
    this.spacer = make("div", { className: "csg-spacer" });
    this.window = make("div", { className: "csg-window", role: "presentation" });
    this.element = make(
      "div",
      {
        className: "csg-grid", role: "grid", tabIndex: 0, "aria-label": "Cells", "aria-multiselectable": "true",
        onscroll: () => this.onScroll(), onkeydown: (event) => this.onKey(event), onclick: (event) => this.onClick(event),
      },
      this.window,
      this.spacer,
    );
    this.element.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.observer = new ResizeObserver(() => this.layOut());
    this.observer.observe(this.element);
  }

  close() {
    this.observer.disconnect();
  }

  // Sizes

  /** Compute sizes, and keep the current cell on the screen; if it is elsewhere, the first row. */
  layOut() {
    if (this.layout && !this.element.clientHeight) return; // hidden: it is laid out when it is shown
    const [first, end] = this.layout ? this.visible : [0, 0];
    const kept = this.cursor >= first && this.cursor < end ? this.cursor : first;
    const before = this.layout ? this.topOf(kept) - this.top : 0; // of its row, on the screen
    const { tile, nPictures } = this.gallery.look;
    const width = Math.max(this.element.clientWidth - GAP, 40);
    const side = clamp(tile, 8, Math.floor((width - GAP) / nPictures));
    const columns = Math.max(1, Math.floor(width / (side * nPictures + GAP)));
    const nRows = Math.ceil(this.total / columns);
    const rowHeight = side + LABEL + GAP;
    this.layout = { side, columns, nRows, rowHeight, height: nRows * rowHeight + GAP };
    this.spacer.style.height = `${Math.min(this.layout.height, MOST_HEIGHT)}px`;
    this.window.style.height = `${this.element.clientHeight}px`;
    this.element.setAttribute("aria-rowcount", nRows);
    this.element.setAttribute("aria-colcount", columns);
    this.rows.forEach((row) => row.remove());
    this.rows.clear();
    this.scrollTo(this.topOf(kept) - clamp(before, 0, Math.max(0, this.element.clientHeight - rowHeight - GAP)));
    this.draw();
    this.reloadIfOthersAreNeeded();
  }

  /** Where the row of a place begins, in pixels of cells. */
  topOf(place) {
    return Math.floor(place / this.layout.columns) * this.layout.rowHeight;
  }

  /** Read the images again if they have other planes or another resolution. */
  reloadIfOthersAreNeeded() {
    const before = this.needed;
    this.needed = JSON.stringify(this.gallery.look.request(this.layout.side));
    if (before && before !== this.needed) this.reload({ keepsPlace: true });
  }

  get scrollable() {
    return Math.max(0, this.layout.height - this.element.clientHeight);
  }

  /** Pixels of cells / pixels of the scroll bar. */
  get stretch() {
    const visible = Math.min(this.layout.height, MOST_HEIGHT) - this.element.clientHeight;
    return visible > 0 ? this.scrollable / visible : 1;
  }

  scrollTo(top) {
    const wanted = clamp(top, 0, this.scrollable);
    if (wanted !== this.top) this.direction = Math.sign(wanted - this.top);
    this.top = wanted;
    this.placed = Math.round(this.top / this.stretch);
    this.element.scrollTop = this.placed;
    this.draw();
  }

  onScroll() {
    const { scrollTop } = this.element;
    if (Math.abs(scrollTop - this.placed) <= 1) return; // our own
    const top = clamp(scrollTop * this.stretch, 0, this.scrollable);
    this.direction = Math.sign(top - this.top) || this.direction;
    this.top = top;
    this.placed = scrollTop;
    this.draw();
  }

  onWheel(event) {
    if (this.stretch <= 1.01 || event.ctrlKey) return;
    event.preventDefault();
    const unit = [1, this.layout.rowHeight, this.element.clientHeight][event.deltaMode];
    this.scrollTo(this.top + event.deltaY * unit);
  }

  // Content

  /** Forget all images, after a change of what is shown. `total` of the new view comes with its first cells. */
  reload({ keepsPlace = false } = {}) {
    this.generation++;
    this.tiles.clear();
    this.awaited = [];
    if (!keepsPlace) {
      this.cursor = this.anchor = 0;
      this.top = this.placed = 0;
      this.element.scrollTop = 0;
    }
    this.isAsking = false;
    this.draw();
    this.ask();
  }

  /** Draw at the next frame, once. */
  draw() {
    if (this.isDue || !this.layout) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.ask(); // first: the server reads while this paints
      this.drawRows();
    });
  }

  /** First and end of the places on the screen. */
  get visible() {
    const { rowHeight, columns } = this.layout;
    const firstRow = Math.floor(this.top / rowHeight);
    const endRow = Math.ceil((this.top + this.element.clientHeight) / rowHeight);
    return [firstRow * columns, Math.min(endRow * columns, this.total)];
  }

  drawRows() {
    const { rowHeight, columns } = this.layout;
    const [first, end] = this.visible;
    const needed = new Set();
    for (let place = first; place < end; place += columns) needed.add(place / columns);
    for (const [number, row] of this.rows) {
      if (needed.has(number)) continue;
      row.remove();
      this.rows.delete(number);
    }
    for (const number of needed) {
      const row = this.rows.get(number) ?? this.newRow(number);
      row.style.transform = `translateY(${GAP + number * rowHeight - this.top}px)`;
      for (const cell of row.cells) this.drawCell(cell, row.strip);
    }
    this.element.setAttribute("aria-activedescendant", this.elementAt(this.cursor)?.id ?? "");
  }

  newRow(number) {
    const { columns } = this.layout;
    const length = Math.min(columns, this.total - number * columns);
    const cells = Array.from({ length }, (_, column) => this.newCell(number * columns + column, column));
    const strip = this.newStrip(length);
    const row = make("div", { className: "csg-row", role: "row", "aria-rowindex": number + 1 }, ...cells, strip);
    Object.assign(row, { cells, strip });
    this.window.append(row);
    this.rows.set(number, row);
    return row;
  }

  /** Width of a cell on the screen. */
  get cellWidth() {
    return this.layout.side * this.gallery.look.nPictures;
  }

  /** The pictures of all cells of a row: browsers show one canvas sooner than one for each cell. */
  newStrip(nCells) {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [nCells * (this.cellWidth + GAP) - GAP, this.layout.side];
    const strip = make("canvas", {
      className: "csg-strip", width: Math.round(width * ratio), height: Math.round(height * ratio), "aria-hidden": "true",
    });
    [strip.style.width, strip.style.height] = [`${width}px`, `${height}px`];
    strip.scale = strip.width / width; // not that of the screen: a canvas has whole pixels
    return strip;
  }

  newCell(place, column) {
    const picture = make("div", { className: "csg-picture" });
    picture.style.height = `${this.layout.side}px`;
    const tick = make("span", { className: "csg-tick", "aria-hidden": "true", title: "Select" });
    const label = make("span", { className: "csg-id", "aria-hidden": "true" });
    const cell = make(
      "div", { className: "csg-cell", role: "gridcell", id: newId("cell"), "aria-colindex": column + 1 }, picture, tick, label,
    );
    cell.style.width = `${this.cellWidth}px`;
    cell.place = place;
    return cell;
  }

  elementAt(place) {
    const row = this.rows.get(Math.floor(place / this.layout.columns));
    return row?.cells[place % this.layout.columns];
  }

  drawCell(cell, strip) {
    const tile = this.tiles.get(cell.place);
    cell.classList.toggle("csg-cursor", cell.place === this.cursor);
    if (!tile) return;
    cell.setAttribute("aria-selected", String(tile.isSelected));
    if (cell.shown === tile && cell.version === this.gallery.look.version) return;
    const start = (cell.place % this.layout.columns) * (this.cellWidth + GAP);
    const [left, end] = [start, start + this.cellWidth].map((x) => Math.round(x * strip.scale));
    paintTile(strip, { left, width: end - left, height: strip.height }, tile, this.gallery.look);
    cell.shown = tile;
    cell.version = this.gallery.look.version;
    cell.lastChild.textContent = tile.id;
    cell.setAttribute("aria-label", `Cell ${tile.id}`);
  }

  // Requests: one at a time, and the next one for what is on the screen by then.

  async ask() {
    if (this.isAsking || !this.layout) return;
    const wanted = this.missing();
    this.gallery.element.dataset.state = wanted?.isVisible ? "loading" : "ready";
    if (!wanted) return;
    this.isAsking = true;
    const { generation } = this;
    const { planes, crop, step } = this.gallery.look.request(this.layout.side);
    const reply = await this.gallery.request({
      type: "cells", view: this.gallery.view, first: wanted.first, count: wanted.count, planes, crop, step,
    });
    if (generation !== this.generation) return; // the view has changed meanwhile
    this.isAsking = false;
    if (!reply) {
      this.gallery.element.dataset.state = "error";
      return;
    }
    this.keep(reply, planes);
    if (reply.total !== this.total || !this.isCounted) this.setTotal(reply.total);
    this.draw();
  }

  setTotal(total) {
    this.total = total;
    this.isCounted = true;
    this.cursor = clamp(this.cursor, 0, Math.max(0, total - 1));
    this.layOut();
    this.gallery.controls.showCounts();
  }

  /** Places that are needed: those on the screen, then those of the next screen in the direction of scrolling. */
  missing() {
    const { columns, rowHeight } = this.layout;
    const onFirst = columns * Math.ceil(this.element.clientHeight / rowHeight);
    if (!this.isCounted) return { first: 0, count: clamp(onFirst, 1, PER_REQUEST), isVisible: true };
    const [first, end] = this.visible;
    const onScreen = this.gap(first, end);
    if (onScreen) return { ...onScreen, isVisible: true };
    const length = end - first;
    return this.direction < 0
      ? this.gap(Math.max(0, first - length), first)
      : this.gap(end, Math.min(end + length, this.total));
  }

  gap(first, end) {
    while (first < end && this.tiles.has(first)) first++;
    while (first < end && this.tiles.has(end - 1)) end--;
    return first < end ? { first, count: Math.min(end - first, PER_REQUEST) } : null;
  }

  keep(reply, planes) {
    const size = planes.length * reply.side ** 2;
    const [bytes] = reply.buffers;
    reply.ids.forEach((id, number) => {
      this.tiles.set(reply.first + number, {
        id, planes, side: reply.side, isSelected: Boolean(reply.selected[number]),
        bytes: bytes.subarray(number * size, (number + 1) * size),
      });
    });
    this.gallery.setSelected(reply.n_selected);
    this.awaited = this.awaited.filter(({ place, done }) => !this.tiles.has(place) || done());
    const [first, end] = this.isCounted ? this.visible : [0, 0];
    for (const place of this.tiles.keys()) {
      if (this.tiles.size * size < MOST_KEPT_BYTES) break;
      if (place < first || place >= end) this.tiles.delete(place);
    }
  }

  /** Wait for the images of a place on the screen. */
  until(place) {
    return new Promise((resolve) => {
      if (this.tiles.has(place)) resolve();
      else this.awaited.push({ place, done: () => void resolve() });
    });
  }

  // Selecting, moving

  /** Select a range of places on the server, and in what is shown. Without a range: all that pass. */
  select(mode, first, last) {
    this.gallery.controls.withdraw();
    const { view } = this.gallery;
    // one after the other: requests that are under way together may arrive in another order
    this.selecting = this.selecting.then(() => this.sendSelection(view, mode, first, last));
    return this.selecting;
  }

  async sendSelection(view, mode, first, last) {
    const reply = await this.gallery.request({ type: "select", view, mode, first, last });
    if (!reply) return;
    for (const [place, tile] of this.tiles) {
      const isIn = first === undefined || (place >= first && place <= last);
      if (isIn) tile.isSelected = mode === "toggle" ? !tile.isSelected : mode !== "remove";
      else if (mode === "set") tile.isSelected = false;
    }
    this.gallery.setSelected(reply.n_selected);
    this.draw();
  }

  async toggle(place) {
    this.moveTo(place);
    await this.select("toggle", place, place);
  }

  /** Select from the anchor to a place. The range so far ends at the cursor: cells that it leaves are deselected. */
  async selectTo(place) {
    const { anchor, cursor } = this;
    const [first, last] = [Math.min(anchor, place), Math.max(anchor, place)];
    this.moveTo(place);
    this.anchor = anchor;
    if (cursor > last) this.select("remove", last + 1, cursor);
    if (cursor < first) this.select("remove", cursor, first - 1);
    await this.select("add", first, last);
  }

  moveTo(place) {
    if (!this.total) return;
    this.cursor = this.anchor = clamp(place, 0, this.total - 1);
    const { rowHeight } = this.layout;
    const top = this.topOf(this.cursor);
    if (top < this.top) this.scrollTo(top);
    else if (top + rowHeight + GAP > this.top + this.element.clientHeight) {
      this.scrollTo(top + rowHeight + GAP - this.element.clientHeight);
    }
    this.draw();
  }

  onClick(event) {
    const cell = event.target.closest(".csg-cell");
    if (!cell) return;
    this.element.focus({ preventScroll: true });
    if (event.shiftKey) this.selectTo(cell.place);
    else if (event.ctrlKey || event.metaKey || event.target.classList.contains("csg-tick")) this.toggle(cell.place);
    else this.open(cell.place);
  }

  async open(place) {
    if (!this.total) return;
    this.moveTo(place);
    await this.until(place);
    this.gallery.dialog.show(place);
  }

  onKey(event) {
    if (!this.total) return;
    const { columns, rowHeight } = this.layout;
    const page = Math.max(1, Math.floor(this.element.clientHeight / rowHeight)) * columns;
    const steps = {
      ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page,
      Home: -this.cursor, End: this.total - 1 - this.cursor,
    };
    if (event.key in steps && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const place = clamp(this.cursor + steps[event.key], 0, this.total - 1);
      if (event.shiftKey) this.selectTo(place);
      else this.moveTo(place);
    } else if (event.key === " ") {
      if (event.shiftKey) this.selectTo(this.cursor);
      else this.toggle(this.cursor);
    } else if (event.key === "Enter") this.open(this.cursor);
    else if (event.key === "a" && (event.ctrlKey || event.metaKey)) this.select("add");
    else return;
    event.preventDefault();
  }
}

// --- controls --------------------------------------------------------------------------------------------------------

const BINS_WIDTH = 240;
const BINS_HEIGHT = 64;

/** The panel beside the grid. */
class Controls {
  constructor(gallery) {
    this.gallery = gallery;
    this.counts = make("p", { className: "csg-counts", role: "status" });
    this.columnLists = [];
    this.showFilter = () => {}; // shows a filter in the histogram
    this.element = make(
      "aside",
      { className: "csg-panel", "aria-label": "Controls" },
      this.counts,
      this.channels(), this.size(), this.order(), this.filter(), this.selection(), help(),
    );
  }

  showCounts() {
    const { grid, about } = this.gallery;
    this.gallery.element.classList.toggle("csg-none", grid.total === 0);
    const all = grid.total === about.n_cells ? "" : ` of ${thousands(about.n_cells)}`;
    this.counts.textContent = `${thousands(grid.total)}${all} ${about.n_cells === 1 ? "cell" : "cells"}`;
    this.all.textContent = `Select all that pass (${thousands(grid.total)})`;
  }

  showSelected(number) {
    if (number !== this.number) this.withdraw();
    this.number = number;
    this.nSelected.textContent = `${plural(number, "cell")} selected`;
  }

  // Channels

  channels() {
    const { look } = this.gallery;
    const change = (name) => (event) => this.gallery.setLook({ [name]: event.target.value });
    const mode = choice("Channels as", [["composite", "composite"], ["colour", "one colour each"], ["gray", "gray"]], look.mode, change("mode"));
    const scale = choice("Contrast for", [["global", "all cells"], ["cell", "each cell"]], look.scale, (event) => {
      this.gallery.setLook({ scale: event.target.value });
      list.replaceChildren(...this.channelRows());
    });
    const list = make("div", {}, ...this.channelRows());
    this.outlines = tickBox("Mask outlines", look.outlines, (event) => this.gallery.setLook({ outlines: event.target.checked }));
    return section("Channels", true, mode, scale, list, this.outlines);
  }

  channelRows() {
    return this.gallery.about.planes.map((plane, number) => this.channelRow(plane, number));
  }

  channelRow(plane, number) {
    const { look } = this.gallery;
    const shown = tickBox(plane.is_mask ? `${plane.name} (mask)` : plane.name, look.shown.includes(number), (event) => {
      this.gallery.showPlane(number, event.target.checked);
    });
    if (plane.is_mask) return make("div", { className: "csg-channel" }, shown);
    const colour = make("input", {
      type: "color", value: look.hex[number], "aria-label": `Colour of ${plane.name}`,
      oninput: (event) => this.gallery.setColour(number, event.target.value),
    });
    const sliders = ["Black", "White"].map((end, place) => this.contrastSlider(plane, number, end, place));
    return make("div", { className: "csg-channel" }, shown, colour, ...sliders);
  }

  contrastSlider(plane, number, end, place) {
    const limits = () => this.gallery.look.contrast[this.gallery.look.scale][number];
    const value = make("span", { className: "csg-value" });
    const input = make("input", { type: "range", min: 0, max: 255, value: limits()[place], "aria-label": `${end} level of ${plane.name}` });
    const show = () => {
      value.textContent = this.gallery.look.scale === "cell" ? percentOf(input.value) : short(valueOf(input.value, plane));
      input.setAttribute("aria-valuetext", value.textContent);
    };
    input.addEventListener("input", () => {
      const [black, white] = limits();
      // black stays below white
      input.value = place === 0 ? Math.min(input.value, white - 1) : Math.max(input.value, black + 1);
      this.gallery.setContrast(number, place, Number(input.value));
      show();
    });
    show();
    return make("label", { className: "csg-slider" }, make("span", { textContent: end }), value, input);
  }

  // Size

  size() {
    const { look, about } = this.gallery;
    const tile = slider("Size on screen", 24, 320, look.tile, (value) => `${value} px`, (value) => this.gallery.setLook({ tile: value }));
    this.tile = tile.querySelector("input");
    const smallest = Math.min(8, about.image_size);
    const crop = slider("Crop", smallest, about.image_size, look.crop, (value) => `${value} pixels`, (value) => this.gallery.setLook({ crop: value }));
    return section("Size", true, tile, crop);
  }

  // Order, sample, jump

  order() {
    const { view } = this.gallery;
    this.sort = this.columnList("order of the file");
    const descending = tickBox("Descending", false, (event) => this.gallery.setView({ descending: event.target.checked }));
    this.sort.addEventListener("change", () => this.gallery.setView({ sort: this.sort.value || null }));
    return section("Order", true, labelled("Sort by", this.sort), descending, this.sampling(view), this.jumping());
  }

  sampling(view) {
    const count = make("input", { type: "number", min: 1, step: 1, placeholder: "all", required: true });
    const seed = make("input", { type: "number", min: 0, step: 1, value: view.seed, required: true });
    const all = make("button", {
      type: "button", textContent: "All cells",
      onclick: () => {
        count.value = "";
        this.gallery.setView({ sample: null });
      },
    });
    const onsubmit = (event) => {
      event.preventDefault();
      this.gallery.setView({ sample: Number(count.value), seed: Number(seed.value) });
    };
    const draw = make("button", { textContent: "Draw sample" });
    return make("form", { className: "csg-form", onsubmit }, labelled("Random cells", count), labelled("Seed", seed), draw, all);
  }

  jumping() {
    this.jump = make("input", { type: "text", inputMode: "numeric", placeholder: "press /", required: true });
    const onsubmit = (event) => {
      event.preventDefault();
      this.gallery.jumpTo(this.jump.value);
    };
    return make("form", { className: "csg-form", onsubmit }, labelled("Cell id", this.jump), make("button", { textContent: "Jump" }));
  }

  focusJump() {
    this.jump.closest("details").open = true;
    if (!this.jump.checkVisibility()) this.gallery.showPanel(true);
    this.jump.focus();
    this.jump.select();
  }

  resize(factor) {
    this.tile.value = Math.round(this.gallery.look.tile * factor);
    this.tile.dispatchEvent(new Event("input"));
  }

  // Columns and filters

  columnList(first) {
    const list = make("select", {});
    list.first = first;
    this.columnLists.push(list);
    fillColumns(list, this.gallery.about.columns);
    return list;
  }

  refreshColumns() {
    for (const list of this.columnLists) fillColumns(list, this.gallery.about.columns);
  }

  filter() {
    this.filterColumn = this.columnList("choose a column");
    this.filterColumn.addEventListener("change", () => this.showHistogram());
    this.histogram = make("div", { className: "csg-histogram" });
    this.chips = make("div", { className: "csg-chips", role: "list", "aria-label": "Filters" });
    return section("Filter", true, labelled("Column", this.filterColumn), this.histogram, this.chips);
  }

  async showHistogram() {
    const column = this.filterColumn.value;
    this.showFilter = () => {};
    if (!column) {
      this.histogram.replaceChildren();
      return;
    }
    const reply = await this.gallery.request({ type: "histogram", column, view: this.gallery.view });
    if (!reply || column !== this.filterColumn.value) return;
    const missing = reply.n_missing ? [make("p", { textContent: `${plural(reply.n_missing, "cell")} without a value` })] : [];
    const shown = { number: () => this.bins(column, reply), category: () => this.labels(column, reply), text: () => [noFilter()] };
    replace(this.histogram, [...shown[reply.kind](), ...missing], this.filterColumn);
    this.showFilter(this.gallery.filterOf(column));
  }

  labels(column, { labels, counts }) {
    const boxes = labels.map((label, number) => tickBox(`${label} (${thousands(counts[number])})`, true, () => {
      const ticked = labels.filter((_, place) => inputs[place].checked);
      this.gallery.setFilter(column, ticked.length === labels.length ? null : { labels: ticked });
    }));
    const inputs = boxes.map((box) => box.querySelector("input"));
    this.showFilter = (filter) => inputs.forEach((input, place) => {
      input.checked = !filter || filter.labels.includes(labels[place]);
    });
    return [make("div", { className: "csg-labels", role: "group", "aria-label": `Values of ${column}` }, ...boxes)];
  }

  bins(column, { counts, low, high }) {
    if (low === null) return [make("p", { textContent: "no values" })];
    const set = (from, to) => this.gallery.setFilter(column, { low: from, high: to });
    const plot = new Bins(counts, low, high, set, column);
    const problem = make("p", { className: "csg-problem", id: newId("problem"), role: "status" });
    const [from, to] = [low, high].map((limit) => make("input", {
      type: "number", step: "any", placeholder: short(limit), "aria-describedby": problem.id,
      onchange: (event) => change(event.target),
    }));
    const report = (input, text) => {
      for (const each of [from, to]) each.setAttribute("aria-invalid", String(each === input));
      problem.textContent = text;
    };
    const change = (input) => {
      const [first, last] = [from, to].map(limitIn);
      if (input.validity.badInput) report(input, "Enter a number");
      else if (first !== null && last !== null && first > last) report(input, "From must be at most To");
      else set(first, last);
    };
    this.showFilter = (filter) => {
      from.value = filter?.low ?? "";
      to.value = filter?.high ?? "";
      report(null, "");
      plot.show(filter);
    };
    return [plot.element, make("div", { className: "csg-form" }, labelled("From", from), labelled("To", to), problem)];
  }

  showFilters() {
    replace(this.chips, this.gallery.view.filters.map((filter) => make(
      "span", { className: "csg-chip", role: "listitem" }, describe(filter),
      make("button", {
        type: "button", textContent: "×", "aria-label": `Remove the filter of ${filter.column}`,
        onclick: () => this.gallery.setFilter(filter.column, null),
      }),
    )), this.filterColumn);
  }

  // Selection

  selection() {
    this.nSelected = make("p", { role: "status" });
    this.all = make("button", { type: "button", onclick: () => this.gallery.grid.select("add") });
    const none = make("button", { type: "button", textContent: "Deselect all", onclick: () => this.gallery.deselectAll() });
    const field = (placeholder) => make("input", { type: "text", placeholder, oninput: () => this.withdraw() });
    this.name = field("mitotic");
    this.value = field("optional: early");
    const button = (text, title, action) => make("button", {
      type: "button", textContent: text, title,
      onclick: (event) => {
        this.asker = event.currentTarget;
        action();
      },
    });
    const { features, folder } = this.gallery.about;
    this.answer = make("div", { className: "csg-answer", role: "status" });
    return section(
      "Selection", true, this.nSelected,
      make("div", { className: "csg-buttons" }, this.all, none),
      labelled("Name", this.name), labelled("Value", this.value),
      make(
        "div", { className: "csg-buttons" },
        button("Tag", "Make a column of this gallery, to filter and sort by", () => this.tag()),
        button("Save ids", folder ? `Write NAME.csv to ${folder}` : "Download NAME.csv", () => this.saveIds()),
        button("Save column", features ? `Write a column to ${features}` : "Needs a table of features", () => this.saveColumn()),
      ),
      this.answer,
    );
  }

  tag() {
    this.act(this.tagRequest, "Replace", (reply) => this.showTag(reply));
  }

  saveColumn() {
    this.act(this.tagRequest, "Replace", (reply) => {
      this.showTag(reply);
      this.act({ type: "save_column", name: reply.name }, "Overwrite", ({ where }) => this.say(`Saved ${where}`));
    });
  }

  saveIds() {
    this.act({ type: "save_ids", name: this.name.value }, "Overwrite", ({ path, name, buffers }) => {
      if (path === null) download(name, buffers[0]);
      this.say(path === null ? `Downloaded ${name}` : `Saved ${path}. Use it as cells: ${path}`);
    });
  }

  get tagRequest() {
    return { type: "tag", name: this.name.value, value: this.value.value };
  }

  showTag({ name, columns }) {
    this.gallery.about.columns = columns;
    this.refreshColumns();
    this.say(`Tagged: ${name} is now a column to filter and sort by`);
    if (this.gallery.filterOf(name) || this.gallery.view.sort === name) this.gallery.setView({});
    if (this.filterColumn.value === name) this.showHistogram();
  }

  /** Send a request. If it would replace something, offer to send the same request again, with overwrite. */
  async act(content, verb, done) {
    const reply = await this.gallery.ask(content);
    if (reply.exists) this.offer(reply.error, verb, () => this.act({ ...content, overwrite: true }, verb, done));
    else if (reply.error) this.gallery.fail(reply.error);
    else done(reply);
  }

  /** Show an answer. The gallery shows one message at a time, so an error is removed. */
  say(...parts) {
    this.gallery.dismiss();
    replace(this.answer, parts, this.asker);
    this.answer.scrollIntoView({ block: "nearest" });
  }

  offer(problem, verb, action) {
    const button = (text, onclick) => make("button", { type: "button", textContent: text, onclick });
    const accept = () => {
      this.withdraw();
      action();
    };
    const question = problem.endsWith("?") ? problem : `${problem}.`;
    this.say(question, make("div", { className: "csg-buttons" }, button(verb, accept), button("Cancel", () => this.withdraw())));
  }

  /** Remove an offer: it was made for other cells, or another name or value. */
  withdraw() {
    if (this.answer.querySelector("button")) this.clearAnswer();
  }

  clearAnswer() {
    replace(this.answer, [], this.asker);
  }
}

/** Bars of a histogram; dragging over them chooses a range. */
class Bins {
  constructor(counts, low, high, set, column) {
    [this.low, this.high, this.set] = [low, high, set];
    const most = Math.max(...counts, 1);
    const width = BINS_WIDTH / counts.length;
    const bars = counts.map((count, number) => {
      // the root shows bins of few cells, too
      const height = count ? Math.max(1, BINS_HEIGHT * Math.sqrt(count / most)) : 0;
      return `M${number * width} ${BINS_HEIGHT}v${-height}h${width * 0.9}v${height}z`;
    });
    this.element = svg("svg", {
      class: "csg-bins", viewBox: `0 0 ${BINS_WIDTH} ${BINS_HEIGHT}`, preserveAspectRatio: "none", role: "img",
      "aria-label": `Histogram of ${column} from ${short(low)} to ${short(high)}; drag, or use From and To, to filter`,
    });
    this.brush = svg("rect", { class: "csg-brush", y: 0, height: BINS_HEIGHT });
    this.element.append(svg("path", { d: bars.join("") }), this.brush);
    this.element.addEventListener("pointerdown", (event) => this.begin(event));
  }

  /** Mark the range of a filter; without one, everything. */
  show(filter) {
    this.mark(this.place(filter?.low ?? this.low), this.place(filter?.high ?? this.high));
  }

  place(value) {
    return this.high > this.low ? clamp((value - this.low) / (this.high - this.low), 0, 1) : 0;
  }

  /** The value at a part of the width, with no more digits than can be pointed at. */
  value(part) {
    const span = this.high - this.low;
    const step = 10 ** Math.floor(Math.log10((span || 1) / 1000));
    return Number((Math.round((this.low + part * span) / step) * step).toPrecision(12));
  }

  mark(first, end) {
    this.brush.setAttribute("x", Math.min(first, end) * BINS_WIDTH);
    this.brush.setAttribute("width", Math.abs(end - first) * BINS_WIDTH);
  }

  begin(event) {
    event.preventDefault();
    this.element.setPointerCapture(event.pointerId);
    const box = this.element.getBoundingClientRect();
    const at = (each) => clamp((each.clientX - box.left) / box.width, 0, 1);
    const first = at(event);
    const move = (each) => this.mark(first, at(each));
    const end = (each) => {
      this.element.removeEventListener("pointermove", move);
      const [from, to] = [first, at(each)].sort((one, other) => one - other);
      // a click chooses everything; ends of the plot are no limits
      if (to - from < 0.01) this.set(null, null);
      else this.set(from > 0 ? this.value(from) : null, to < 1 ? this.value(to) : null);
    };
    this.element.addEventListener("pointermove", move);
    this.element.addEventListener("pointerup", end, { once: true });
  }
}

function svg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function describe({ column, low, high, labels }) {
  if (labels) return `${column}: ${labels.length > 3 ? `${labels.length} values` : labels.join(", ") || "none"} `;
  if (low === null) return `${column} ≤ ${short(high)} `;
  if (high === null) return `${column} ≥ ${short(low)} `;
  return `${short(low)} ≤ ${column} ≤ ${short(high)} `;
}

const limitIn = (input) => (input.value === "" ? null : Number(input.value));

const noFilter = () => make("p", { textContent: "a column of texts: it can be sorted, not filtered" });

const SOURCES = { tag: "Tags", obs: "Cells", feature: "Features", embedding: "Embeddings" };

function fillColumns(list, columns) {
  const before = list.value;
  const groups = Object.entries(SOURCES).map(([source, label]) => {
    const options = columns.filter((column) => column.source === source).map(({ name }) => make("option", { value: name, textContent: name }));
    return options.length ? [make("optgroup", { label }, ...options)] : [];
  });
  list.replaceChildren(make("option", { value: "", textContent: list.first }), ...groups.flat());
  list.value = before;
}

function section(title, open, ...children) {
  return make("details", { open }, make("summary", { textContent: title }), ...children);
}

function labelled(text, input) {
  return make("label", { className: "csg-label" }, make("span", { textContent: text }), input);
}

function tickBox(text, checked, onchange) {
  return make("label", { className: "csg-box" }, make("input", { type: "checkbox", checked, onchange }), make("span", { textContent: text }));
}

function choice(text, options, value, onchange) {
  const list = make("select", { onchange }, ...options.map(([key, label]) => make("option", { value: key, textContent: label })));
  list.value = value;
  return labelled(text, list);
}

function slider(text, min, max, value, format, onchange) {
  const shown = make("output", { textContent: format(value) });
  const input = make("input", {
    type: "range", min, max, value, "aria-label": text,
    oninput: () => {
      shown.textContent = format(Number(input.value));
      onchange(Number(input.value));
    },
  });
  return make("div", { className: "csg-slider" }, make("span", { textContent: text }), shown, input);
}

function download(name, bytes) {
  const link = make("a", { href: URL.createObjectURL(new Blob([bytes], { type: "text/csv" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const KEYS = [
  ["arrows, Page Up, Page Down, Home, End", "move"],
  ["Space", "select or deselect a cell"],
  ["Shift with arrows, or Shift-click", "select a range, or make it shorter"],
  ["Ctrl-A", "select all that pass the filters"],
  ["Enter, or click", "open a cell"],
  ["Ctrl-click, or click on the box", "select or deselect a cell"],
  ["/", "jump to a cell id"],
  ["o", "show or hide mask outlines"],
  ["+ and -", "larger or smaller"],
  ["Escape", "close the cell or the controls; back to the grid"],
];

function help() {
  const rows = KEYS.map(([keys, effect]) => make("tr", {}, make("th", { textContent: keys, scope: "row" }), make("td", { textContent: effect })));
  return section("Keys", false, make("table", { className: "csg-table" }, make("tbody", {}, ...rows)));
}

// --- dialog of a cell ------------------------------------------------------------------------------------------------

const OVERVIEW = 320; // longer side of the picture of all cells

/** A cell in detail: its planes, its values, and where it lies on the slide. */
class CellDialog {
  constructor(gallery) {
    this.gallery = gallery;
    this.title = make("h2", { id: newId("title") });
    this.selected = make("input", { type: "checkbox", onchange: () => this.toggle() });
    this.planes = make("div", { className: "csg-planes" });
    this.values = make("table", { className: "csg-table" });
    this.slide = make("div", { className: "csg-slide" });
    const button = (text, label, onclick) => make("button", { type: "button", textContent: text, "aria-label": label, onclick });
    this.element = make(
      "dialog",
      {
        className: "csg-dialog", "aria-labelledby": this.title.id, tabIndex: -1,
        onkeydown: (event) => this.onKey(event), onkeyup: (event) => this.onKeyUp(event), onclose: () => this.onClose(),
      },
      make(
        "header", {}, button("‹", "Previous cell", () => this.move(-1)), this.title, button("›", "Next cell", () => this.move(1)),
        make("label", { className: "csg-box" }, this.selected, make("span", { textContent: "selected" })),
        button("×", "Close", () => this.element.close()),
      ),
      this.planes,
      make("div", { className: "csg-columns" }, make("div", {}, make("h3", { textContent: "Values" }), this.values), this.slide),
    );
  }

  onClose() {
    this.gallery.grid.element.focus({ preventScroll: true });
  }

  async show(place) {
    const { grid } = this.gallery;
    const tile = grid.tiles.get(place);
    if (!tile) return;
    this.place = place;
    const reply = await this.gallery.request({ type: "cell", id: tile.id });
    if (!reply || this.place !== place) return;
    this.title.textContent = `Cell ${tile.id}`;
    this.selected.checked = reply.selected;
    this.showPlanes(reply);
    this.values.replaceChildren(make("tbody", {}, ...reply.values.map(([name, value]) => make(
      "tr", {}, make("th", { textContent: name, scope: "row" }), make("td", { textContent: value }),
    ))));
    this.showSlide(reply.center, tile.id);
    if (this.element.open) return;
    this.element.showModal();
    this.element.focus(); // not its first button
  }

  showPlanes({ side, buffers: [bytes] }) {
    const { look, about } = this.gallery;
    const numbers = about.planes.map((_, number) => number);
    const masks = numbers.filter((number) => about.planes[number].is_mask);
    const all = { side, bytes, planes: numbers };
    const picture = (name, shown, mode) => {
      const canvas = make("canvas", { width: side * 4, height: side * 4, role: "img", "aria-label": name });
      const planes = look.outlines ? [...new Set([...shown, ...masks])] : shown;
      paintTile(canvas, { left: 0, width: canvas.width, height: canvas.height }, pick(all, planes), look.with({ shown, mode }));
      return figure(canvas, name);
    };
    const channels = look.shown.filter((number) => !masks.includes(number));
    const single = numbers.map((number) => picture(about.planes[number].name, [number], "gray"));
    this.planes.replaceChildren(...(channels.length > 1 ? [picture("composite", channels, "composite")] : []), ...single);
  }

  async showSlide(center, id) {
    this.slide.replaceChildren();
    const { overview } = this.gallery;
    if (!center || !overview) return;
    const canvas = make("canvas", {
      role: "img", "aria-label": `Cell ${id} on the slide, at x ${center[0].toFixed(1)}, y ${center[1].toFixed(1)}`,
    });
    paintOverview(canvas, overview, center);
    const text = `All cells; this one at x ${center[0].toFixed(1)}, y ${center[1].toFixed(1)}`;
    this.slide.append(make("h3", { textContent: "On the slide" }), figure(canvas, text));
    const { place } = this;
    const reply = await this.gallery.request({ type: "surroundings", id });
    if (!reply?.shape || place !== this.place) return;
    this.slide.append(figure(this.surroundings(reply, center), "Surroundings"));
  }

  surroundings({ shape: [, height, width], names, extent, buffers: [bytes] }, center) {
    const { about, look } = this.gallery;
    const canvas = make("canvas", { width, height, role: "img", "aria-label": "Pixels of the slide around the cell" });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    const linear = Float32Array.from({ length: 256 }, (_, byte) => byte / 255);
    const layers = names.flatMap((name, number) => {
      const plane = about.planes.findIndex((each) => !each.is_mask && each.name === name);
      if (!look.shown.includes(plane)) return [];
      return [{ bytes: bytes.subarray(number * width * height, (number + 1) * width * height), colour: look.colours[plane], brightness: linear }];
    });
    fill(pixels, 0, width, layers);
    context.putImageData(pixels, 0, 0);
    const [left, right, top, bottom] = extent;
    paintMarker(context, ((center[0] - left) / (right - left)) * width, ((center[1] - top) / (bottom - top)) * height);
    return canvas;
  }

  async toggle() {
    await this.gallery.grid.toggle(this.place);
    this.selected.checked = this.gallery.grid.tiles.get(this.place)?.isSelected ?? this.selected.checked;
  }

  async move(step) {
    const { grid } = this.gallery;
    const place = clamp(this.place + step, 0, grid.total - 1);
    grid.moveTo(place);
    await grid.until(place);
    this.show(place);
  }

  onKey(event) {
    if (event.key === "ArrowRight") this.move(1);
    else if (event.key === "ArrowLeft") this.move(-1);
    else if (event.key === " " && event.target !== this.selected) this.toggle();
    else return;
    event.preventDefault();
  }

  /** Space selects the cell, also when a button has the focus. Some browsers press buttons when the key is released. */
  onKeyUp(event) {
    if (event.key === " " && event.target !== this.selected) event.preventDefault();
  }
}

function figure(canvas, caption) {
  return make("figure", {}, canvas, make("figcaption", { textContent: caption }));
}

/** A cell with some of its planes. */
function pick({ side, bytes, planes }, wanted) {
  const area = side ** 2;
  const some = new Uint8Array(area * wanted.length);
  wanted.forEach((number, place) => {
    const from = planes.indexOf(number) * area;
    some.set(bytes.subarray(from, from + area), place * area);
  });
  return { side, planes: wanted, bytes: some };
}

function paintOverview(canvas, { bytes, width, height, origin, scale }, [x, y]) {
  const pixels = new ImageData(width, height);
  for (let from = 0; from < width * height; from++) {
    pixels.data.fill(bytes[from], 4 * from, 4 * from + 3);
    pixels.data[4 * from + 3] = 255;
  }
  const times = OVERVIEW / Math.max(width, height);
  [canvas.width, canvas.height] = [Math.ceil(width * times), Math.ceil(height * times)];
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(asImage(pixels), 0, 0, canvas.width, canvas.height);
  paintMarker(context, ((x - origin[0]) / scale + 0.5) * times, ((y - origin[1]) / scale + 0.5) * times);
}

function paintMarker(context, x, y) {
  for (const [colour, width] of [["#000", 4], ["#ff3b30", 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    context.arc(x, y, 9, 0, 2 * Math.PI);
    context.stroke();
  }
}

// --- gallery ---------------------------------------------------------------------------------------------------------

const MOST_COLOURS = 3; // the sum of more channels is often white

/** How cells are shown. Objects are replaced, never changed: `version` tells tiles to be painted again. */
class Look {
  constructor(planes, settings) {
    this.planes = planes;
    Object.assign(this, settings);
    this.version = ++lastId;
    this.colours = planes.map((plane, number) => (plane.is_mask ? GRAY : rgbOf(this.hex[number])));
    this.tables = new Map();
  }

  static first({ planes, image_size }) {
    const channels = planes.flatMap((plane, number) => (plane.is_mask ? [] : [number]));
    return new Look(planes, {
      mode: "composite", scale: "global", outlines: false, crop: image_size, tile: 96,
      shown: channels.slice(0, MOST_COLOURS),
      hex: planes.map((plane) => plane.colour),
      contrast: {
        global: planes.map((plane) => [byteOf(plane.black, plane), byteOf(plane.white, plane)]),
        cell: planes.map(() => [0, 255]),
      },
    });
  }

  with(changes) {
    const { mode, scale, outlines, crop, tile, shown, hex, contrast } = this;
    return new Look(this.planes, { mode, scale, outlines, crop, tile, shown, hex, contrast, ...changes });
  }

  get nPictures() {
    return this.mode === "composite" ? 1 : Math.max(1, this.shown.length);
  }

  brightness(number, bytes) {
    const limits = this.contrast[this.scale][number];
    if (this.planes[number].is_mask) return brightnessOf(0, 255);
    if (this.scale === "cell") return brightnessOf(...limitsInCell(bytes, limits));
    if (!this.tables.has(number)) this.tables.set(number, brightnessOf(...limits));
    return this.tables.get(number);
  }

  /** What to ask of the server for tiles of a side on the screen: planes, crop, and how many pixels become one. */
  request(side) {
    const masks = this.planes.flatMap((plane, number) => (plane.is_mask && this.outlines ? [number] : []));
    const planes = [...new Set([...this.shown, ...masks])];
    const step = Math.max(1, Math.floor(this.crop / (side * (window.devicePixelRatio || 1))));
    return { planes, crop: this.crop, step };
  }
}

// Controls that need letters.
const TYPED = "select, textarea, input:not([type=checkbox], [type=range], [type=color])";

// Requests that the gallery sends by itself. Their success does not remove the error of an action.
const UNASKED = ["cells", "histogram", "cell", "surroundings"];

class Gallery {
  constructor(transport, element, { isPage }) {
    this.transport = transport;
    this.element = element;
    this.isPage = isPage;
    this.element.classList.add("csg");
    this.element.dataset.lmSuppressShortcuts = "true"; // JupyterLab leaves keys to us
    this.view = { filters: [], sort: null, descending: false, sample: null, seed: 0 };
    this.alert = make("div", { className: "csg-alert", role: "alert" });
    element.append(this.alert);
    this.start();
  }

  async start() {
    const about = await this.request({ type: "hello" });
    if (!about) return;
    this.about = about;
    this.overview = about.overview && {
      ...about.overview, bytes: about.buffers[0], height: about.overview.shape[0], width: about.overview.shape[1],
    };
    this.look = Look.first(about);
    this.grid = new Grid(this);
    this.dialog = new CellDialog(this);
    this.controls = new Controls(this);
    this.toggle = make("button", {
      type: "button", className: "csg-toggle", textContent: "Controls", "aria-expanded": "false",
      onclick: () => this.showPanel(!this.element.classList.contains("csg-open")),
    });
    const main = make("div", { className: "csg-main" }, this.toggle, this.controls.element, this.grid.element);
    this.element.append(main, this.dialog.element);
    // A click on plain text focuses the gallery, which passes the focus on. On a page, keys are used if nothing has it.
    this.element.tabIndex = -1;
    this.element.addEventListener("focus", () => this.focusGrid());
    (this.isPage ? document : this.element).addEventListener("keydown", (event) => this.onKey(event));
    this.setSelected(about.n_selected);
    if (about.n_without_features) this.controls.answer.append(`${plural(about.n_without_features, "cell")} without features`);
    this.grid.layOut();
    if (this.isPage) this.grid.element.focus({ preventScroll: true }); // a notebook keeps the focus where it is
  }

  /** Show or hide the controls, which cover the grid of a narrow gallery. */
  showPanel(isShown) {
    if (isShown === this.element.classList.contains("csg-open")) return;
    this.element.classList.toggle("csg-open", isShown);
    this.toggle.setAttribute("aria-expanded", String(isShown));
    this.grid.layOut();
  }

  /** Leave the controls: focus the grid, which is shown if they cover it. */
  returnToGrid() {
    this.showPanel(false);
    this.focusGrid();
  }

  close() {
    this.grid?.close();
    this.transport.close?.();
  }

  // Requests

  /** Return the reply, also one with an error. */
  async ask(content) {
    try {
      return await this.transport.request(content);
    } catch (error) {
      return { error: error.message };
    }
  }

  /** Return the reply, or null after an error, which is shown. */
  async request(content) {
    const reply = await this.ask(content);
    if (reply.error) {
      this.fail(reply.error, content.type);
      return null;
    }
    if (!UNASKED.includes(content.type) || this.failed === content.type) this.dismiss();
    return reply;
  }

  /** Show an error. The gallery shows one message at a time, so an answer or an older error is removed. */
  fail(message, type) {
    this.failed = type;
    this.controls?.clearAnswer();
    const close = make("button", { type: "button", textContent: "×", "aria-label": "Close the message", onclick: () => this.dismiss() });
    replace(this.alert, [make("span", { textContent: message }), close], close);
  }

  dismiss() {
    replace(this.alert, [], { focus: () => this.focusGrid() });
  }

  /** Focus the grid, or the button that shows it. */
  focusGrid() {
    if (!this.grid) return;
    const target = this.grid.element.checkVisibility() ? this.grid.element : this.toggle;
    target.focus({ preventScroll: true });
  }

  // Changes of what is shown

  setLook(changes) {
    this.look = this.look.with(changes);
    this.grid.layOut();
  }

  showPlane(number, isShown) {
    const others = this.look.shown.filter((each) => each !== number);
    this.setLook({ shown: isShown ? [...others, number].sort((one, other) => one - other) : others });
  }

  setColour(number, hex) {
    this.look = this.look.with({ hex: this.look.hex.with(number, hex) });
    this.grid.draw();
  }

  setContrast(number, place, value) {
    const { scale, contrast } = this.look;
    const limits = contrast[scale].map((pair, plane) => (plane === number ? pair.with(place, value) : pair));
    this.look = this.look.with({ contrast: { ...contrast, [scale]: limits } });
    this.grid.draw();
  }

  setView(changes) {
    this.dismiss();
    this.view = { ...this.view, ...changes };
    this.grid.isCounted = false;
    this.grid.reload();
    this.controls.showFilters();
  }

  filterOf(column) {
    return this.view.filters.find((filter) => filter.column === column);
  }

  /** Set the filter of a column; null, or a range without limits, removes it. */
  setFilter(column, filter) {
    const isEmpty = !filter || (!filter.labels && filter.low === null && filter.high === null);
    const others = this.view.filters.filter((each) => each.column !== column);
    this.setView({ filters: isEmpty ? others : [...others, { column, ...filter }] });
    // A histogram counts the cells that pass the filters of all other columns. Its own filter changes no number.
    if (column === this.controls.filterColumn.value) this.controls.showFilter(this.filterOf(column));
    else this.controls.showHistogram();
  }

  async jumpTo(id) {
    const reply = await this.request({ type: "find", id, view: this.view });
    if (!reply) return;
    if (reply.place === null) this.fail(`Cell ${id.trim()} does not pass the filters or is not in the sample`);
    else {
      this.returnToGrid();
      this.grid.moveTo(reply.place);
    }
  }

  async deselectAll() {
    this.controls.withdraw();
    const reply = await this.request({ type: "select", view: { filters: [] }, mode: "remove" });
    if (!reply) return;
    for (const tile of this.grid.tiles.values()) tile.isSelected = false;
    this.setSelected(reply.n_selected);
    this.grid.draw();
  }

  setSelected(number) {
    this.controls.showSelected(number);
  }

  onKey(event) {
    event.stopPropagation(); // notebooks have shortcuts of one letter
    if (event.target === document.body) (this.dialog.element.open ? this.dialog : this.grid).onKey(event);
    if (event.key === "Escape" && !this.dialog.element.open) this.returnToGrid();
    if (event.key === "/" && this.dialog.element.open) return; // the field is behind the cell
    if (event.target.matches(TYPED) || event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = {
      "/": () => this.controls.focusJump(),
      o: () => this.controls.outlines.querySelector("input").click(),
      "+": () => this.controls.resize(1.25),
      "-": () => this.controls.resize(0.8),
    };
    if (!(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
  }
}

// --- entries ---------------------------------------------------------------------------------------------------------

/** Show a gallery in a notebook: the entry of anywidget. */
function render({ model, el }) {
  const element = el.appendChild(make("div", { className: "csg-notebook" }));
  const gallery = new Gallery(new WidgetTransport(model), element, { isPage: false });
  return () => gallery.close();
}

/** Show a gallery on a page, and tell the server when its tab is open and when it is being closed. */
function startPage(body) {
  const tab = `tab=${Math.random().toString(36).slice(2)}`;
  const element = body.appendChild(make("main", { className: "csg-page" }));
  const gallery = new Gallery(new PageTransport(), element, { isPage: true });
  const stayOpen = async () => {
    try {
      const answer = await fetch(`open?${tab}`);
      for (const reader = answer.body.getReader(); !(await reader.read()).done; );
    } catch {
      // the same as an answer that has ended
    }
    gallery.fail("cellstamp has ended: run cellstamp browse again");
  };
  stayOpen();
  addEventListener("pagehide", () => navigator.sendBeacon(`goodbye?${tab}`));
}

const page = document.getElementById("cellstamp-gallery-page");
if (page) startPage(page);

export default { render };
