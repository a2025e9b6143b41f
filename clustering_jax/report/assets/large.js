// One row, enlarged, with everything that is known of it.

const large = by("large");
let current = { row: 0, order: [] };

/** A list of the clusters, as the target of a move. */
function fillTargets(select) {
  if (!select) return;
  const kept = select.value;
  const usable = clusters.filter((cluster) => !isFixed(cluster.number) && !isGone(cluster.number));
  const options = usable.map((cluster) => make("option", { value: cluster.number }, `${cluster.number} ${nameOf(cluster.number)}`.trim().slice(0, 40)));
  select.replaceChildren(...options, make("option", { value: NONE }, "no cluster"));
  if (kept && [...select.options].some((option) => option.value === kept)) select.value = kept;
}

function facts(row) {
  const target = moves.get(row);
  const second = value("second", row);
  const group = value("duplicate_group", row);
  const same = group === null ? [] : rows.duplicate_group.flatMap((other, i) => (other === group && i !== row ? [rows.id[i]] : []));
  return [
    ["Cluster", titleOf(rows.cluster[row]) + (target === undefined ? "" : `, moved to ${titleOf(target)}`)],
    ["Probability", shareOf(row)],
    second === null ? null : ["Second choice", `${titleOf(second)} (${value("second_probability", row)?.toFixed(2)})`],
    value("outlier", row) === null ? null : ["Odder than", `${Math.min(99, Math.round(100 * rows.outlier[row]))}% of the rows`],
    same.length ? ["Near-duplicates", same.slice(0, 8).join(", ") + (same.length > 8 ? ` and ${same.length - 8} more` : "")] : null,
  ].filter(Boolean);
}

function showLarge() {
  const { row, order } = current;
  const small = pictureOf(row);
  const image = by("large-picture");
  image.hidden = !small;
  image.className = data.sharp ? "sharp" : "";
  image.alt = rows.id[row];
  image.onerror = () => small && image.src !== small && (image.src = small);
  if (small) image.src = fileOf(row) || small;
  by("large-title").textContent = rows.id[row];
  by("large-facts").replaceChildren(...facts(row).flatMap(([term, text]) => [make("dt", {}, term), make("dd", {}, text)]));
  const place = order.indexOf(row);
  by("large-place").textContent = order.length > 1 ? `${place + 1} of ${order.length}` : "";
  by("large-before").disabled = place <= 0;
  by("large-after").disabled = place >= order.length - 1;
  by("large-select").setAttribute("aria-pressed", selected.has(row));
  by("large-select").textContent = selected.has(row) ? "Selected" : "Select";
  fillTargets(by("large-target"));
}

function enlarge(row, order) {
  current = { row, order };
  showLarge();
  if (!large.open) large.showModal();
}

function step(distance) {
  const next = current.order[current.order.indexOf(current.row) + distance];
  if (next !== undefined) enlarge(next, current.order);
}

large.addEventListener("keydown", (event) => {
  if (event.target.tagName === "SELECT") return;
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
  if (event.key.toLowerCase() === "s") toggle([current.row]);
});
large.addEventListener("click", (event) => event.target === large && large.close());
onClick("large-before", () => step(-1));
onClick("large-after", () => step(1));
onClick("large-close", () => large.close());
onClick("large-select", () => toggle([current.row]));
onClick("large-move", () => report(move([current.row], Number(by("large-target").value)), 1));
onChange(() => large.open && showLarge());
