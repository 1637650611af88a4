// A link from another site comes without the cookie, which is for this site's own requests, and so leads here although
// the reader is signed in. This request is the site's own: if it is sent on, so is the reader.
const answer = await fetch(location.href, { redirect: "manual" });
if (answer.type === "opaqueredirect") location.replace(location.href);
