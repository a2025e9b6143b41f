// One card for each cluster: its name, tabs of members, and what can be done with it.

const FIRST = 12; // tiles of a tab at first
const MORE = 120; // tiles that "more" adds
const CARDS = 48; // cards at first, and that "more" adds

const value = (name, row) => rows[name]?.[row] ?? null;
const TABS = {
  Typical: (own) => [...own].sort((a, b) => (value("typical", a) || 9) - (value("typical", b) || 9) || rows.probability[b] - rows.probability[a]),
  "Least sure": (own) => [...own].sort((a, b) => rows.probability[a] - rows.probability[b]),
  Odd: (own) => (rows.outlier ? [...own].sort((a, b) => rows.outlier[b] - rows.outlier[a]) : []),
  Duplicates: (own) => own.filter((row) => value("duplicate_group", row) !== null).sort((a, b) => rows.duplicate_group[a] - rows.duplicate_group[b]),
  All: (own) => own,
};

function tile(row) {
  const group = value("duplicate_group", row);
  const text = [make("span", { className: "id" }, rows.id[row].split("/").pop())].filter(() => !pictureOf(row));
  const parts = [picture(row), ...text, make("small", {}, shareOf(row))].filter(Boolean);
  const label = `${rows.id[row]}, probability ${shareOf(row)}${group === null ? "" : `, duplicates ${group}`}`;
  return make("button", { type: "button", className: "tile", title: label, "aria-label": label, "data-row": row }, ...parts);
}

/** Shows which tiles are selected, and which rows were moved. */
function mark(root) {
  for (const button of root.querySelectorAll(".tile")) {
    const row = Number(button.dataset.row);
    button.setAttribute("aria-pressed", selected.has(row));
    const target = moves.get(row);
    button.dataset.moved = target === undefined ? "" : target === NONE ? "→ none" : `→ ${target}`;
  }
}

/** The tabs of a cluster and the tiles below them. */
function tabbed(number) {
  const own = members.get(number);
  const orders = Object.entries(TABS).map(([name, order]) => [name, order(own)]).filter(([, list]) => list.length);
  const panel = make("div", { className: "tiles", role: "tabpanel", id: `tiles-${number}` });
  const more = make("button", { type: "button", className: "more" });
  const list = make("div", { className: "tabs", role: "tablist", "aria-label": `Members of ${titleOf(number)}` });
  let shown = [];

  function fill(order, end) {
    panel.append(...order.slice(panel.children.length, end).map(tile));
    shown = order;
    more.hidden = end >= order.length;
    more.textContent = `More (${(order.length - end).toLocaleString("en")})`;
    mark(panel);
  }
  function open(button, order) {
    for (const other of list.children) {
      other.setAttribute("aria-selected", other === button);
      other.tabIndex = other === button ? 0 : -1;
    }
    panel.setAttribute("aria-labelledby", button.id);
    panel.replaceChildren();
    fill(order, FIRST);
  }
  for (const [name, order] of orders) {
    const text = name === "Duplicates" || name === "All" ? `${name} ${order.length.toLocaleString("en")}` : name;
    const button = make("button", { type: "button", role: "tab", id: `tab-${number}-${name.replace(" ", "-")}`, "aria-controls": panel.id }, text);
    button.addEventListener("click", () => open(button, order));
    list.append(button);
  }
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const buttons = [...list.children];
    const next = buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length];
    next.focus();
    next.click();
  });
  more.addEventListener("click", () => fill(shown, panel.children.length + MORE));
  panel.addEventListener("click", (event) => {
    const button = event.target.closest(".tile");
    if (!button) return;
    const row = Number(button.dataset.row);
    if (event.ctrlKey || event.metaKey || event.shiftKey) toggle([row]);
    else enlarge(row, shown);
  });
  panel.addEventListener("keydown", (event) => {
    const button = event.target.closest(".tile");
    if (button && event.key.toLowerCase() === "s" && !event.ctrlKey && !event.metaKey) toggle([Number(button.dataset.row)]);
  });
  if (orders.length) open(list.firstChild, orders[0][1]);
  return { list, panel, more, shown: () => [...panel.children].map((button) => Number(button.dataset.row)) };
}

function key(number) {
  return make("span", { className: `key c${number % 7}`, "aria-hidden": "true" });
}

/** What can be done with a cluster. */
function actions(number, tabs) {
  const parts = make("input", { type: "number", min: 2, max: 99, value: 2, "aria-label": `Parts of cluster ${number}` });
  const cut = make("button", { type: "button" }, "Split");
  const locked = make("input", { type: "checkbox" });
  const all = make("button", { type: "button" }, "Select these");
  const point = make("button", { type: "button" }, "On the map");
  cut.addEventListener("click", () => parts.reportValidity() && split(number, Math.round(parts.valueAsNumber)));
  locked.addEventListener("change", () => lock(number, locked.checked));
  all.addEventListener("click", () => toggle(tabs.shown(), true));
  point.addEventListener("click", () => highlight(number));
  const editing = [make("span", {}, cut, " into ", parts), make("label", {}, locked, " lock")];
  const own = [all, ...(data.map ? [point] : []), ...(data.editable && number !== NONE ? editing : [])];
  const update = () => {
    locked.checked = isLocked(number);
    locked.disabled = isGone(number);
    cut.disabled = parts.disabled = isFixed(number) || survivor(number) !== number || merges.flat().includes(number) || byNumber.get(number).size < 2;
  };
  return { row: make("div", { className: "actions controls" }, ...own), update: number === NONE ? () => {} : update };
}

function card(number) {
  const cluster = byNumber.get(number) ?? { facts: data.unassigned, words: [] };
  const tabs = tabbed(number);
  const tools = actions(number, tabs);
  const head = make("div", { className: "head" }, key(number), make("h3", {}, number === NONE ? "No cluster" : `Cluster ${number}`));
  const name = make("input", { className: "name", placeholder: "name", "aria-label": `Name of cluster ${number}`, maxLength: 200 });
  const tick = make("input", { type: "checkbox", "aria-label": `Merge cluster ${number}` });
  const state = make("p", { className: "state" });
  if (number !== NONE) head.append(name);
  if (number !== NONE && data.editable) head.append(make("label", { className: "controls" }, tick, " merge"));
  name.addEventListener("change", () => rename(number, name.value));
  tick.addEventListener("change", () => (tick.checked ? ticked.add(number) : ticked.delete(number), changed()));
  const section = make("section", { className: "cluster", id: `cluster-${number}`, "aria-label": titleOf(number) },
    head, make("p", { className: "note" }, cluster.facts), state, tabs.list, tabs.panel, tabs.more, tools.row);

  function update() {
    if (document.activeElement !== name) name.value = nameOf(number);
    name.readOnly = !data.editable || isGone(number);
    tick.checked = ticked.has(number);
    tick.disabled = isFixed(number) || splits.has(number) || isGone(number);
    section.classList.toggle("gone", isGone(number));
    state.textContent = [
      isGone(number) ? `Becomes part of ${titleOf(survivor(number))}.` : "",
      splits.has(number) ? `Will be split into ${splits.get(number)}.` : "",
      isLocked(number) ? "Locked." : "",
    ].filter(Boolean).join(" ");
    state.hidden = !state.textContent;
    tools.update();
    mark(section);
  }
  update();
  onChange(update);
  return section;
}

/** Shows the cards in an order, a part of them at first. */
function showCards() {
  const sort = by("sort");
  const more = by("further");
  const sure = (number) => members.get(number).reduce((sum, row) => sum + rows.probability[row], 0) / (members.get(number).length || 1);
  const orders = {
    number: (a, b) => a.number - b.number,
    size: (a, b) => b.size - a.size,
    sure: (a, b) => sure(a.number) - sure(b.number),
  };
  const cards = new Map();
  const shownCard = (number) => cards.get(number) ?? cards.set(number, card(number)).get(number);
  let end = CARDS;
  function fill() {
    const order = clusters.filter((cluster) => cluster.size).sort(orders[sort.value]).map((cluster) => cluster.number);
    if (members.get(NONE).length) order.push(NONE);
    by("clusters").replaceChildren(...order.slice(0, end).map(shownCard));
    more.hidden = end >= order.length;
    more.textContent = `More clusters (${order.length - end})`;
  }
  sort.addEventListener("change", fill);
  more.addEventListener("click", () => ((end += CARDS), fill()));
  fill();
}
