"use strict";
// The layered graph: follow paths on hover and focus, pin a unit on click, show what it responds to.
for (const root of document.querySelectorAll(".flow")) {
  const data = JSON.parse(root.querySelector(".flow-data").textContent);
  const svg = root.querySelector("svg");
  const detail = root.querySelector(".flow-detail");
  const empty = detail.firstElementChild;
  const units = new Map([...svg.querySelectorAll(".unit")].map(g => [Number(g.dataset.unit), g]));
  const edges = [...svg.querySelectorAll(".edge")];
  const into = new Map(), from = new Map();
  data.edges.forEach(([a, b, value], index) => {
    (from.get(a) ?? from.set(a, []).get(a)).push({ other: b, value, index });
    (into.get(b) ?? into.set(b, []).get(b)).push({ other: a, value, index });
  });
  let pinned = null;

  const walk = (start, links, seen, lit) => {
    const waiting = [start];
    while (waiting.length) {
      for (const link of links.get(waiting.pop()) ?? []) {
        lit.add(link.index);
        if (!seen.has(link.other)) { seen.add(link.other); waiting.push(link.other); }
      }
    }
  };

  const follow = id => {
    svg.classList.toggle("following", id !== null);
    const seen = new Set(), lit = new Set();
    if (id !== null) { seen.add(id); walk(id, into, seen, lit); walk(id, from, seen, lit); }
    for (const [other, g] of units) g.classList.toggle("on", seen.has(other));
    edges.forEach((path, index) => path.classList.toggle("on", lit.has(index)));
  };

  const make = (tag, text, parent, name) => {
    const element = document.createElement(tag);
    if (text) element.textContent = text;
    if (name) element.className = name;
    parent.append(element);
    return element;
  };

  // A map is drawn over its photograph as light: what the unit ignores stays dark.
  const paint = (canvas, map) => {
    const side = canvas.width = canvas.height = 288;
    const context = canvas.getContext("2d");
    const bytes = Uint8Array.from(atob(map.map), c => c.charCodeAt(0));
    const small = document.createElement("canvas");
    small.width = map.w; small.height = map.h;
    const pixels = new ImageData(map.w, map.h);
    bytes.forEach((value, i) => { pixels.data[4 * i + 3] = 225 - Math.round(225 * value / 255); });
    small.getContext("2d").putImageData(pixels, 0, 0);
    const photo = new Image();
    photo.onload = () => {
      context.drawImage(photo, 0, 0, side, side);
      context.imageSmoothingQuality = "high";
      context.drawImage(small, 0, 0, side, side);
    };
    photo.src = data.images[map.image].src;
  };

  const links = (title, list, parent) => {
    const box = make("div", "", parent);
    make("h4", title, box);
    const items = make("ul", "", box);
    const strongest = [...(list ?? [])].sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, 6);
    if (!strongest.length) make("li", "none among the edges shown", items, "quiet");
    for (const link of strongest) {
      const share = `${link.value < 0 ? "−" : "+"}${Math.round(100 * Math.abs(link.value))}\u202f%`;
      const button = make("button", `${share}  ${data.units[link.other].name}`, make("li", "", items),
        link.value < 0 ? "down" : "up");
      button.addEventListener("click", () => { pin(link.other); units.get(link.other).focus(); });
    }
  };

  const show = id => {
    detail.replaceChildren();
    if (id === null) { detail.append(empty); return; }
    const unit = data.units[id];
    make("h3", unit.name, detail);
    make("p", unit.text, detail, "quiet");
    const maps = make("ul", "", detail, "flow-maps");
    for (const map of unit.maps) {
      const item = make("li", "", maps);
      const canvas = make("canvas", "", item);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `where ${unit.name} responds on ${data.images[map.image].name}`);
      paint(canvas, map);
      make("span", data.images[map.image].name, item);
    }
    const both = make("div", "", detail, "flow-links");
    links("Strongest inputs", into.get(id), both);
    links("Strongest outputs", from.get(id), both);
  };

  const pin = id => {
    if (pinned !== null) units.get(pinned).classList.remove("pinned");
    pinned = id;
    if (id !== null) { units.get(id).classList.add("pinned"); roam(id); }
    follow(id);
    show(id);
  };

  // One tab stop for the whole graph; the arrows go along columns and rows.
  const roam = id => { for (const [other, g] of units) g.setAttribute("tabindex", other === id ? 0 : -1); };
  const within = column => [...units.keys()].filter(other => data.units[other].column === column);
  const step = (id, columns, rows) => {
    const { column, row } = data.units[id];
    let target = column + columns;
    while (columns && target >= 0 && target <= data.last && !within(target).length) target += columns;
    const distance = other => Math.abs(data.units[other].row - row - rows);
    const closer = (best, other) => distance(other) < distance(best) ? other : best;
    return within(target).reduce(closer, within(target)[0]) ?? id;
  };

  for (const [id, g] of units) {
    g.addEventListener("mouseenter", () => { if (pinned === null) follow(id); });
    g.addEventListener("mouseleave", () => { if (pinned === null) follow(null); });
    g.addEventListener("focus", () => { roam(id); if (pinned === null) follow(id); });
    g.addEventListener("blur", () => { if (pinned === null) follow(null); });
    g.addEventListener("click", () => pin(pinned === id ? null : id));
    g.addEventListener("keydown", event => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (move) {
        const next = units.get(step(id, ...move));
        next.focus();
        next.scrollIntoView({ block: "nearest", inline: "nearest" });
      } else if (event.key === "Enter" || event.key === " ") pin(pinned === id ? null : id);
      else if (event.key === "Escape") pin(null);
      else return;
      event.preventDefault();
    });
  }
  roam(units.keys().next().value);
  svg.addEventListener("click", event => { if (!event.target.closest(".unit")) pin(null); });
}
