'use strict';
const table = document.getElementById('ranking'), body = table.tBodies[0];
const key = (row, column) => row.cells[column].dataset.value;
for (const head of table.tHead.rows[0].cells) {
  head.querySelector('button')?.addEventListener('click', () => {
    const words = head.textContent === 'clip', column = head.cellIndex;
    const before = head.ariaSort || (words ? 'descending' : 'ascending');
    const direction = before === 'ascending' ? 'descending' : 'ascending';
    const sign = direction === 'ascending' ? 1 : -1;
    const compare = words ? (a, b) => a.localeCompare(b, 'en', {numeric: true}) : (a, b) => a - b;
    const rows = [...body.rows].sort(
      (a, b) => sign * compare(key(a, column), key(b, column)));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', direction);
    rows.forEach((row, place) => { row.cells[0].textContent = place + 1; });
    body.append(...rows);
  });
}
