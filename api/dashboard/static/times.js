// Times in the reader's own zone; the exact one, in UTC, stays as the title.
const near = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const far = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });

const exact = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export function tell(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const at = new Date(element.dateTime);
    const isToday = at.toDateString() === new Date().toDateString();
    element.title = `${at.toISOString().replace("T", " ").slice(0, 19)} UTC`;
    element.textContent = (!isToday ? far : element.closest(".log") ? exact : near).format(at);
  }
}

tell(document);
