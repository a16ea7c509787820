(function () {
  "use strict";
  const views = JSON.parse(document.getElementById("token-data").textContent);
  const [who, layer, by] = ["token-client", "token-layer", "token-colour"].map((id) => document.getElementById(id));
  const text = document.getElementById("token-text"), detail = document.getElementById("token-detail");
  const note = document.getElementById("token-note"), legend = document.getElementById("token-legend");
  let view, gates, spans, current, asked = false; // whether a colour was chosen

  function element(tag, words, parent) {
    const made = document.createElement(tag);
    made.textContent = words;
    if (parent) parent.appendChild(made);
    return made;
  }
  function fill(select, entries) {
    const before = select.value;
    select.replaceChildren(...entries.map(([value, words]) => {
      const option = element("option", words);
      option.value = value;
      return option;
    }));
    if (entries.some(([value]) => value === before)) select.value = before;
  }
  function gate(place, token, expert) { // 0 to 1; place -1: the mean over layers
    const tokens = view.pieces.length, count = view.experts.length;
    if (place >= 0) return gates[(place * tokens + token) * count + expert] / 255;
    let sum = 0;
    for (let i = 0; i < view.layers.length; i++) sum += gate(i, token, expert);
    return sum / view.layers.length;
  }
  function share(place, token, experts) {
    return experts.reduce((sum, expert) => sum + gate(place, token, expert), 0);
  }
  const isShared = (name) => name.startsWith("generalist_");
  const shared = () => view.experts.map((_, i) => i).filter((i) => isShared(view.experts[i]));
  const percent = (value) => Math.round(100 * value) + " %";

  // From -1 to 1: which colour, and how strong; root, so that small leanings are seen
  function lean(token) {
    const place = Number(layer.value);
    if (by.value === "gain") {
      const loss = view.loss[token], base = view.base[token];
      return loss === null || base === null ? 0 : Math.max(-1, Math.min(1, (base - loss) / 6));
    }
    if (by.value === "kind") return 2 * share(place, token, shared()) - 1;
    return gate(place, token, Number(by.value));
  }
  function ends() { // the names of -1, 0 and 1
    if (by.value === "gain") return ["worse than the base by 6 nats", "same", "better by 6 nats"];
    if (by.value === "kind") return ["specialists carry all", "half and half", "generalists carry all"];
    return ["", "carries nothing", view.experts[Number(by.value)] + " carries all"];
  }
  function paint(node, value) {
    const hue = by.value === "gain" ? (value < 0 ? "var(--bad)" : "var(--s2)") : value < 0 ? "var(--s1)" : "var(--s0)";
    node.style.setProperty("--hue", hue);
    node.style.setProperty("--strength", Math.round(55 * Math.sqrt(Math.abs(value))) + "%");
  }
  function recolour() {
    spans.forEach((span, i) => paint(span, lean(i)));
    const [low, middle, high] = ends();
    legend.replaceChildren();
    if (low) element("span", low + " ", legend);
    for (const value of low ? [-1, -0.5, -0.1, 0, 0.1, 0.5, 1] : [0, 0.1, 0.25, 0.5, 0.75, 1]) {
      const box = element("i", "\u00a0", legend);
      box.className = "token";
      paint(box, value);
    }
    element("span", " " + (low ? high + "; pale: " + middle : high + "; pale: " + middle), legend);
    if (current !== undefined) show(current);
  }
  const visible = (piece) => piece === "" ? "\u00b7" : piece.replace(/\n/g, "\u23ce").replace(/^ +$/, "\u2423");

  function show(token) {
    current = token;
    detail.replaceChildren();
    const words = element("p", "", detail);
    element("strong", "\u201c" + visible(view.pieces[token]) + "\u201d", words);
    const loss = view.loss[token], base = view.base[token], alone = view.alone && view.alone[token];
    let told = " opens a passage: nothing stands before it to foretell it from.";
    if (loss !== null) {
      const gain = base - loss;
      told = " loss " + loss.toFixed(2) + " nats, base " + base.toFixed(2) + ": " +
        Math.abs(gain).toFixed(2) + (gain < 0 ? " worse" : " better");
      if (alone !== null) told += "; the first generalist alone " + alone.toFixed(2);
      told += ".";
    }
    element("span", told, words);
    if (view.experts.length < 2) return;
    const box = element("div", "", detail), table = element("table", "", box);
    box.className = "scroll";
    const head = element("tr", "", element("thead", "", table)), body = element("tbody", "", table);
    ["gate of", "mean"].concat(view.layers.map((number) => "layer " + number)).forEach((words) => {
      element("th", words, head).scope = "col";
    });
    view.experts.forEach((name, expert) => {
      const row = element("tr", "", body);
      element("th", name.replace("_", " "), row).scope = "row";
      for (let place = -1; place < view.layers.length; place++) {
        const cell = element("td", percent(gate(place, token, expert)), row);
        if (place === Number(layer.value)) cell.className = "key";
      }
    });
  }
  function focus(token) {
    spans.forEach((span, i) => { span.tabIndex = i === token ? 0 : -1; });
    spans[token].focus();
  }
  function open() {
    view = views[Number(who.value)];
    gates = Uint8Array.from(atob(view.gates), (character) => character.charCodeAt(0));
    current = undefined;
    detail.replaceChildren(element("p", "Point at a token, or go through them with the arrow keys."));
    note.textContent = view.note;
    fill(layer, [["-1", "mean of all"]].concat(view.layers.map((number, i) => [String(i), "layer " + number])));
    const both = view.routed && shared().length > 0 && shared().length < view.experts.length;
    const single = view.routed ? view.experts.map((name, i) => [String(i), "share of " + name.replace("_", " ")]) : [];
    fill(by, (both ? [["kind", "generalists or specialists"]] : []).concat(single, [["gain", "gain against the base"]]));
    if (!asked) by.selectedIndex = 0;
    layer.disabled = view.experts.length < 2;
    text.replaceChildren();
    let passage;
    spans = view.pieces.map((piece, i) => {
      if (view.begins.includes(i)) passage = element("p", "", text);
      const span = element("span", visible(piece), passage);
      span.className = "token";
      span.tabIndex = i ? -1 : 0;
      span.addEventListener("mouseenter", () => show(i));
      span.addEventListener("focus", () => show(i));
      span.addEventListener("click", () => focus(i));
      if (piece.includes("\n")) passage.appendChild(document.createElement("br"));
      return span;
    });
    recolour();
  }
  text.addEventListener("keydown", (event) => {
    const at = spans.indexOf(document.activeElement), last = spans.length - 1;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + 10, ArrowUp: at - 10, Home: 0, End: last }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    focus(Math.max(0, Math.min(last, to)));
  });
  fill(who, views.map((each, i) => [String(i), each.name]));
  who.addEventListener("change", open);
  layer.addEventListener("change", recolour);
  by.addEventListener("change", () => { asked = true; recolour(); });
  open();
})();
