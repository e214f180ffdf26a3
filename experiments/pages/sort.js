// Sorts the rows of a table by the column whose heading is pressed: upwards, then downwards.
// A cell such as "0.826 ± 0.017" counts by its first number; empty cells ("–") always come last.
"use strict";

const NUMBER = /^[+-]?[\d,]*\.?\d+(e[+-]?\d+)?/i;

function numberOf(text) {
  const found = text.match(NUMBER);
  return found ? Number(found[0].replaceAll(",", "")) : NaN;
}

function compareBy(column, direction, isNumeric) {
  return (first, second) => {
    const [a, b] = [first, second].map((row) => row.cells[column].textContent.trim());
    if (a === "–" || b === "–") return (a === "–") - (b === "–");
    const order = isNumeric ? numberOf(a) - numberOf(b) : a.localeCompare(b);
    return direction * order;
  };
}

function sortBy(table, heading, column) {
  const isUpwards = heading.getAttribute("aria-sort") !== "ascending";
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const texts = rows.map((row) => row.cells[column].textContent.trim());
  const isNumeric = texts.every((text) => text === "–" || NUMBER.test(text));
  body.append(...rows.sort(compareBy(column, isUpwards ? 1 : -1, isNumeric)));
  for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", isUpwards ? "ascending" : "descending");
}

for (const table of document.querySelectorAll("table")) {
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sortBy(table, heading, column));
  });
}
