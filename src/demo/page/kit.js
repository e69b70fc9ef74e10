// What all scripts of the page use: elements, names, and how money and time are written.

export const PEOPLE = [
  { id: "ana", name: "Ana", tint: "#b4467f" },
  { id: "bo", name: "Bo", tint: "#2f6fb5" },
];
export const $ = (id) => document.getElementById(id);
const money = new Intl.NumberFormat("en-IE", { style: "currency", currency: "EUR" });
export const euros = (cents) => money.format(cents / 100);
export const nameOf = (id) =>
  PEOPLE.find((p) => p.id === id)?.name ?? id[0].toUpperCase() + id.slice(1);
export const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
export const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
export const duration = (ms) => (ms < 1000 ? `${ms.toFixed(ms < 10 ? 1 : 0)} ms` : seconds(ms));
export const portOf = (url) => `:${new URL(url).port}`;
export const element = (tag, { text, ...rest } = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), rest);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
};
