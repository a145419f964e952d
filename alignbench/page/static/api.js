// Questions to the server. A refusal becomes an Error with the server's own words.

let key = null;

async function answered(response) {
  if (!response.ok) throw Object.assign(new Error(await response.text()), { status: response.status });
  const type = response.headers.get("content-type") || "";
  return type.includes("json") ? response.json() : response.text();
}

export async function get(url) {
  return answered(await fetch(url));
}

/** A change. The key is asked for once, and again where the server has been started anew meanwhile. */
export async function post(url, body = {}, session = "/session") {
  return answered(await changed(url, body, session));
}

/** A change whose answer comes line by line, each a JSON value for `told`. */
export async function lines(url, body, told, signal) {
  const response = await changed(url, body, "/session", signal);
  if (!response.ok) return answered(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let left = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    const found = (left + value).split("\n");
    left = found.pop();
    for (const line of found) told(JSON.parse(line));
  }
}

async function changed(url, body, session, signal) {
  for (let attempt = 0; ; attempt++) {
    key ??= (await get(session)).key;
    const response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json", "x-alignbench-change": key },
      body: JSON.stringify(body),
      signal,
    });
    if (response.status !== 403 || attempt) return response;
    key = null;
  }
}
