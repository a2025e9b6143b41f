// What the page knows of the rows and clusters, and the corrections that the reader has made so far.

const data = JSON.parse(document.getElementById("data").textContent);
const { rows, clusters } = data;
const count = rows.id.length;
const byNumber = new Map(clusters.map((cluster) => [cluster.number, cluster]));
const NONE = -1; // the cluster of rows without one

const selected = new Set(); // rows
const ticked = new Set(); // clusters to merge
const moves = new Map(); // new cluster of each moved row
const splits = new Map(); // number of parts of each split cluster
const names = new Map(); // new name of each renamed cluster
const locks = new Map(); // changed locks: true or false
let merges = []; // groups of clusters; each becomes its first one
let saved = true; // whether the corrections have been downloaded

const watchers = [];
let waiting = false;

/** Calls `watch` after every change of the selection or the corrections, at most once per frame. */
function onChange(watch) {
  watchers.push(watch);
}

function changed(correction = false) {
  if (correction) saved = false;
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    for (const watch of watchers) watch();
  });
}

/** Makes an element. Keys that are no property of the element, such as aria-label, become attributes. */
function make(tag, values = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(values)) {
    if (key in element) element[key] = value;
    else if (value !== null) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

const by = (id) => document.getElementById(id);
/** Some buttons are not in every page. */
const onClick = (id, action) => by(id)?.addEventListener("click", action);
const plural = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;

// --- Clusters

const survivor = (number) => merges.find((group) => group.includes(number))?.[0] ?? number;
const isGone = (number) => survivor(number) !== number;
const isLocked = (number) => locks.get(number) ?? byNumber.get(number)?.locked ?? false;
/** A cluster that was locked before these corrections can't be changed until it is unlocked. */
const isFixed = (number) => Boolean(byNumber.get(number)?.locked) && isLocked(number);
const clusterOf = (row) => survivor(moves.get(row) ?? rows.cluster[row]);
const nameOf = (number) => names.get(number) ?? byNumber.get(number)?.words.join(", ") ?? "";
const titleOf = (number) => (number === NONE ? "no cluster" : [`cluster ${number}`, nameOf(number)].filter(Boolean).join(": "));

function merge(numbers) {
  const joined = new Set(numbers);
  for (const group of merges) if (group.some((number) => joined.has(number))) group.forEach((number) => joined.add(number));
  const group = [...joined].sort((a, b) => a - b);
  merges = merges.filter((other) => !joined.has(other[0])).concat([group]);
  for (const number of group) splits.delete(number);
  for (const number of group.slice(1)) {
    names.delete(number);
    if (locks.get(number)) locks.delete(number);
  }
  ticked.clear();
  changed(true);
}

function split(number, parts) {
  splits.set(number, parts);
  changed(true);
}

function rename(number, name) {
  const text = name.trim();
  if (text && text !== byNumber.get(number).words.join(", ")) names.set(number, text);
  else names.delete(number);
  changed(true);
}

/** Locks or unlocks a cluster. What was corrected while it was unlocked is undone. */
function lock(number, on) {
  if (on === byNumber.get(number).locked) locks.delete(number);
  else locks.set(number, on);
  if (isFixed(number)) {
    merges = merges.filter((group) => !group.includes(number));
    splits.delete(number);
    for (const [row, target] of moves) if (target === number || rows.cluster[row] === number) moves.delete(row);
  }
  changed(true);
}

/** Moves rows to a cluster. Rows of a locked cluster stay. Returns the number of rows that stay. */
function move(list, number) {
  let stay = 0;
  for (const row of list) {
    if (isFixed(rows.cluster[row])) stay += 1;
    else if (rows.cluster[row] === number) moves.delete(row);
    else moves.set(row, number);
  }
  changed(true);
  return stay;
}

/** The corrections as `clustering-jax edit --json` takes them. All numbers are those before the corrections. */
function request() {
  const all = {
    merge: merges,
    split: Object.fromEntries(splits),
    rename: Object.fromEntries(names),
    move: Object.fromEntries([...moves].map(([row, number]) => [rows.id[row], number])),
    lock: [...locks].filter(([, on]) => on).map(([number]) => number),
    unlock: [...locks].filter(([, on]) => !on).map(([number]) => number),
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => Object.keys(value).length));
}

// --- Rows

const members = new Map([...byNumber.keys(), NONE].map((number) => [number, []]));
for (let row = 0; row < count; row += 1) members.get(rows.cluster[row])?.push(row);

/** The address of the file of a row, relative to the page; "" if there is none. */
function fileOf(row) {
  try {
    return data.files ? data.files + rows.id[row].split("/").map(encodeURIComponent).join("/") : "";
  } catch {
    return ""; // a name that is not UTF-8
  }
}

/** The address of a small picture of a row; "" if there is none. */
function pictureOf(row) {
  const rest = data.pictures?.[row];
  return rest ? data.picture_start + rest : fileOf(row);
}

function picture(row) {
  const source = pictureOf(row);
  const loading = source.startsWith("data:") ? "eager" : "lazy";
  return source && make("img", { loading, decoding: "async", src: source, alt: "", className: data.sharp ? "sharp" : "" });
}

const shareOf = (row) => rows.probability[row].toFixed(2);

function toggle(list, on) {
  for (const row of list) {
    if (on ?? !selected.has(row)) selected.add(row);
    else selected.delete(row);
  }
  changed();
}

function save(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
