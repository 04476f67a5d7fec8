// Tables to take away: CSV, as the commands read it.

const cell = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);

/** Rows of texts as CSV. */
export const csv = (rows) => rows.map((row) => `${row.map(cell).join(",")}\n`).join("");

/** Labels in a cell; a list in JSON where one of them holds what separates labels. */
export const listed = (labels) =>
  labels.some((label) => /[;；|\t、,，]/.test(label)) ? JSON.stringify(labels) : labels.join(";");

/** Let the browser save a text as a file. */
export function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** The ids in a text: one a line, or the first column of a table with a header. */
export function idsIn(text) {
  const ids = text
    .split(/\r?\n/)
    .map((line) => /^\s*(?:"((?:[^"]|"")*)"|([^,;\t]*))/.exec(line))
    .map(([, quoted, plain]) => (quoted?.replaceAll('""', '"') ?? plain).trim())
    .filter((id) => id !== "");
  if (/^(id|image_?id|image)$/i.test(ids[0] ?? "")) ids.shift();
  return [...new Set(ids)];
}
