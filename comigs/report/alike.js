(function () {
  "use strict";
  for (const figure of document.querySelectorAll("figure.alike")) {
    const select = figure.querySelector("select");
    if (!select) continue;
    const data = JSON.parse(figure.querySelector("script").textContent);
    const rows = [...figure.querySelector("tbody").rows], count = rows.length;
    const show = () => {
      const values = data.shown[Number(select.value)];
      for (let i = 0; i < count; i++) for (let j = 0; j < count; j++) {
        const value = values[i * count + j], id = data.key + "-" + i + "-" + j;
        const words = value === null ? "\u2013" : value.toFixed(2);
        rows[i].cells[j + 1].textContent = words;
        if (i === j) continue;
        const path = document.querySelector("#" + id + " path"), text = document.querySelector("#" + id + "-text text");
        path.style.fill = value < 0 ? "var(--s1)" : "var(--s0)";
        path.style.opacity = data.full * Math.abs(value || 0);
        if (text) text.textContent = words;
      }
    };
    select.addEventListener("change", show);
  }
})();
