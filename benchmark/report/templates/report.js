"use strict";
// What a cell is sorted by: its first number, else its text; holes come last in either direction.
function key(cell) {
  const text = cell.textContent.trim();
  const number = /^[+−-]?[\d,]*\.?\d+(?:e-?\d+)?/.exec(text);
  if (text === "" || text === "–") return null;
  return number ? Number(number[0].replace("−", "-").replaceAll(",", "")) : text.toLowerCase();
}

function compare(a, b) {
  if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
  return typeof a === "number" ? -1 : 1;
}

function sort(table, place, direction) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, key: key(row.cells[place]) }));
  if (direction === "none") rows.sort((a, b) => a.row.dataset.place - b.row.dataset.place);
  else {
    const sign = direction === "ascending" ? 1 : -1;
    rows.sort((a, b) => (a.key === null) - (b.key === null) || (a.key === null ? 0 : sign * compare(a.key, b.key)));
  }
  body.append(...rows.map(({ row }) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tBodies[0].rows].forEach((row, place) => { row.dataset.place = place; });
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => head.firstElementChild.addEventListener("click", () => {
    // Numbers are first wanted from the best, names from a to z; a third click restores the paper's order.
    const order = place === 0 ? ["ascending", "descending", "none"] : ["descending", "ascending", "none"];
    const next = order[(order.indexOf(head.ariaSort) + 1) % 3];
    heads.forEach((other) => { other.ariaSort = "none"; });
    head.ariaSort = next;
    sort(table, place, next);
  }));
}

const form = document.getElementById("filters");
const fits = (wanted, has) => wanted === "" || has === undefined || has === "" || has.split("\n").includes(wanted);

function filter() {
  const { dataset, pair, method } = Object.fromEntries(new FormData(form));
  for (const item of document.querySelectorAll(".item"))
    item.hidden = !(fits(dataset, item.dataset.dataset) && fits(pair, item.dataset.pair) && fits(method, item.dataset.method));
  for (const row of document.querySelectorAll(".item tr[data-method]")) row.hidden = !fits(method, row.dataset.method);
  for (const part of document.querySelectorAll(".filtered"))
    part.hidden = [...part.querySelectorAll(".item")].every((item) => item.hidden);
  const rows = [...document.querySelectorAll("tbody tr[data-method]")];
  const shown = rows.filter((row) => !row.closest("[hidden]")).length;
  form.querySelector("output").textContent = dataset || pair || method ? `${shown} of ${rows.length} rows` : "";
}

form.addEventListener("change", filter);
form.addEventListener("reset", () => setTimeout(filter));
form.addEventListener("submit", (event) => event.preventDefault());
addEventListener("beforeprint", () => document.querySelectorAll("#card details").forEach((part) => { part.open = true; }));
filter();
