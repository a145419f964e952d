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
  for (let attempt = 0; ; attempt++) {
    key ??= (await get(session)).key;
    const response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json", "x-alignbench-change": key },
      body: JSON.stringify(body),
    });
    if (response.status !== 403 || attempt) return answered(response);
    key = null;
  }
}
