// Shows openapi.json and sends requests. No library, nothing from elsewhere.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete", "head", "options", "trace"];
let api;

// An element with attributes, listeners (on…) and children; text is always text.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

// Comments are paragraphs with `code` in backticks.
function inline(text) {
  return (text || "").split(/(`[^`]+`)/).map((part) => part.startsWith("`") && part.length > 2 ? make("code", {}, part.slice(1, -1)) : part);
}

function prose(text) {
  return make("div", { class: "text" }, (text || "").split(/\n\n+/).filter(Boolean).map((paragraph) => make("p", {}, inline(paragraph))));
}

function resolve(schema) {
  if (!schema || !schema.$ref) return schema || {};
  const target = schema.$ref.split("/").slice(1).reduce((at, part) => at[part], api);
  const { $ref, ...beside } = schema;
  return { ...target, ...beside };
}

function typeName(schema) {
  const ref = schema.$ref && schema.$ref.split("/").pop().split(".").pop();
  const full = resolve(schema);
  if (ref) return full.enum ? `${ref} (enum)` : ref;
  if (full.type === "array") return `${typeName(full.items || {})}[]`;
  if (full.type === "object" && full.additionalProperties && full.additionalProperties !== true) return `map of ${typeName(full.additionalProperties)}`;
  const kind = Array.isArray(full.type) ? full.type.join(" or ") : full.type || "any";
  return full.format ? `${kind} (${full.format})` : full.contentEncoding ? `${kind} (${full.contentEncoding})` : kind;
}

function limits(schema) {
  const found = [];
  const words = { minimum: "≥", exclusiveMinimum: ">", maximum: "≤", exclusiveMaximum: "<", minLength: "length ≥", maxLength: "length ≤", minItems: "items ≥", maxItems: "items ≤", minProperties: "entries ≥", maxProperties: "entries ≤", pattern: "matches" };
  for (const [keyword, word] of Object.entries(words)) if (keyword in schema) found.push(`${word} ${schema[keyword]}`);
  if (schema.uniqueItems) found.push("no duplicates");
  if (schema.readOnly) found.push("read only");
  return found.join(", ");
}

// A tree of a schema's fields, opened on demand so that messages that contain themselves end.
function tree(schema, depth = 0) {
  const full = resolve(schema);
  if (full.anyOf) return make("div", {}, full.anyOf.map((each) => tree(each, depth)));
  if (full.type === "array") return tree(full.items, depth);
  const properties = full.properties || (full.additionalProperties && full.additionalProperties !== true && resolve(full.additionalProperties).properties);
  if (!properties) return make("div", { class: "schema" }, make("span", { class: "type" }, typeName(schema)));
  const rows = Object.entries(properties).map(([name, property]) => {
    const required = (full.required || []).includes(name);
    const inner = resolve(property);
    const item = resolve(inner.type === "array" ? inner.items : inner.additionalProperties && inner.additionalProperties !== true ? inner.additionalProperties : property);
    const head = [name, required ? make("span", { class: "required" }, " *") : "", " ", make("span", { class: "type" }, typeName(property)), " ",
      make("span", { class: "about" }, inline([property.description || "", limits(inner), item.enum ? item.enum.join(" | ") : ""].filter(Boolean).join(" — ")))];
    if (!item.properties) return make("li", {}, head);
    const details = make("details", {}, make("summary", {}, head));
    details.addEventListener("toggle", () => { if (details.children.length === 1) details.append(tree(item, depth + 1)); }, { once: true });
    return make("li", {}, details);
  });
  return make("div", { class: "schema" }, make("ul", {}, rows));
}

// A small example of a schema: what is required and, at the top, a few of the other fields.
function example(schema, depth = 0) {
  const full = resolve(schema);
  if (full.anyOf) return example(full.anyOf[0], depth);
  if (full.examples) return full.examples[0];
  if (full.const !== undefined) return full.const;
  if (full.enum) return full.enum[Math.min(1, full.enum.length - 1)];
  const type = Array.isArray(full.type) ? full.type[0] : full.type;
  if (type === "array") return depth > 2 ? [] : [example(full.items, depth + 1)];
  if (type === "object") {
    const result = {};
    for (const [name, property] of Object.entries(full.properties || {})) {
      const inner = resolve(property);
      if (inner.readOnly || property.readOnly) continue;
      if ((full.required || []).includes(name) || (depth === 0 && !/^Excludes /m.test(property.description || ""))) {
        if (depth < 4) result[name] = example(property, depth + 1);
      }
    }
    return result;
  }
  if (type === "integer" || type === "number") return Math.max(full.minimum ?? 0, full.exclusiveMinimum !== undefined ? full.exclusiveMinimum + 1 : 0);
  if (type === "boolean") return false;
  if (full.format === "date-time") return new Date().toISOString();
  return type === "string" ? "" : null;
}

function input(parameter) {
  const schema = resolve(parameter.schema);
  const label = `${parameter.name} (${parameter.in})`;
  const common = { "data-in": parameter.in, "data-name": parameter.name, "data-slashes": parameter["x-may-hold-slashes"], "aria-label": label };
  const choices = schema.enum || (schema.type === "boolean" ? ["true", "false"] : null);
  if (choices) return make("select", common, make("option", { value: "" }, ""), choices.map((choice) => make("option", { value: choice }, choice)));
  return make("input", { ...common, type: "text", "data-list": schema.type === "array", placeholder: schema.type === "array" ? "several: separate by commas" : "" });
}

function parameterTable(parameters) {
  if (!parameters.length) return [];
  return [make("h3", {}, "Parameters"), make("table", {},
    make("tr", {}, ["Name", "Type", "What it is", "Value"].map((text) => make("th", {}, text))),
    parameters.map((parameter) => make("tr", {},
      make("td", { class: "name" }, parameter.name, parameter.required ? make("span", { class: "required", title: "required" }, " *") : ""),
      make("td", {}, make("span", { class: "schema type" }, typeName(parameter.schema)), make("div", { class: "muted" }, `in ${parameter.in}`)),
      make("td", {}, prose(parameter.description), make("span", { class: "muted" }, limits(resolve(parameter.schema)))),
      make("td", { class: "field" }, input(parameter)))))];
}

function requestUrl(path, inside) {
  let url = path;
  const query = new URLSearchParams();
  for (const field of inside.querySelectorAll("[data-in]")) {
    const { in: place, name } = field.dataset;
    if (place === "path") {
      const encoded = encodeURIComponent(field.value);
      url = url.replace(`{${name}}`, "slashes" in field.dataset ? encoded.replaceAll("%2F", "/") : encoded);
    } else if (field.value !== "") for (const value of "list" in field.dataset ? field.value.split(",") : [field.value]) query.append(name, value.trim());
  }
  const base = document.baseURI.replace(/\/docs.*$/, "");
  return base + url + (query.size ? `?${query}` : "");
}

async function send(path, method, operation, inside, answer) {
  const headers = { Accept: operation.streams && inside.querySelector("[data-stream]") ? inside.querySelector("[data-stream]").value : "application/json, */*;q=0.5" };
  const token = document.getElementById("token").value;
  if (token) headers.Authorization = `Bearer ${token}`;
  const body = inside.querySelector("[data-body]");
  if (body) headers["Content-Type"] = body.dataset.body;
  const url = requestUrl(path, inside);
  const stop = new AbortController();
  const began = performance.now();
  const status = make("p", {}, "…");
  const output = make("pre", {});
  answer.replaceChildren(make("p", { class: "path" }, `${method.toUpperCase()} ${url}`), status, output);
  const stopButton = make("button", { onclick: () => stop.abort() }, "Stop");
  answer.append(stopButton);
  try {
    const response = await fetch(url, { method: method.toUpperCase(), headers, body: body ? body.value : undefined, signal: stop.signal });
    status.replaceChildren(make("span", { class: `status ${response.ok ? "ok" : "failed"}` }, `${response.status} ${response.statusText}`),
      make("span", { class: "muted" }, `  ${response.headers.get("content-type") || ""}  ${(performance.now() - began).toFixed(0)} ms`));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      text += value;
      output.textContent = text;
    }
    try { output.textContent = JSON.stringify(JSON.parse(text), null, 2); } catch { /* a stream or bytes: shown as it came */ }
    if (!text) output.textContent = "(empty)";
  } catch (error) {
    status.append(make("span", { class: "status failed" }, ` ${stop.signal.aborted ? "stopped" : error}`));
  } finally {
    stopButton.remove();
  }
}

function inside(path, method, operation) {
  const parts = [prose(operation.description), make("p", { class: "muted" }, make("code", {}, operation["x-grpc-method"] || "")), ...parameterTable(operation.parameters || [])];
  if (operation.requestBody) {
    const [type, content] = Object.entries(operation.requestBody.content)[0];
    const value = type === "*/*" ? "" : type === "application/x-ndjson" ? JSON.stringify(example(content.schema)) : JSON.stringify(example(content.schema), null, 2);
    parts.push(make("h3", {}, `Body (${type})`), prose(operation.requestBody.description),
      make("details", {}, make("summary", { class: "muted" }, "Fields"), tree(content.schema)),
      make("textarea", { "data-body": type === "*/*" ? "application/octet-stream" : type, spellcheck: "false", "aria-label": "Request body" }, value));
  }
  const ok = operation.responses["200"] || Object.values(operation.responses)[0];
  const types = Object.keys(ok.content || {});
  operation.streams = types.includes("text/event-stream");
  const answer = make("div", { class: "answer" });
  const holder = make("div", { class: "inside" });
  parts.push(make("div", { class: "actions" },
    make("button", { class: "send", onclick: () => send(path, method, operation, holder, answer) }, "Send"),
    operation.streams ? make("select", { "data-stream": true, "aria-label": "Form of the stream" }, types.map((type) => make("option", { value: type }, type))) : ""), answer);
  parts.push(make("h3", {}, "Answer"), prose(ok.description), types.length ? tree(ok.content[types[0]].schema) : "");
  holder.append(...parts);
  return holder;
}

function operationElement({ path, method, operation }) {
  const details = make("details", { class: `operation${operation.deprecated ? " deprecated" : ""}`, id: operation.operationId },
    make("summary", {}, make("span", { class: `method ${method}` }, method.toUpperCase()), make("span", { class: "path" }, path), make("span", { class: "what" }, inline(operation.summary))));
  details.addEventListener("toggle", () => { if (details.children.length === 1) details.append(inside(path, method, operation)); });
  return details;
}

function show() {
  const operations = Object.entries(api.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ path, method, operation: item[method] })));
  document.title = api.info.title;
  document.getElementById("title").textContent = api.info.title;
  document.getElementById("version").textContent = api.info.version;
  document.getElementById("token-label").hidden = !api.security;
  const known = (api.tags || []).map((tag) => tag.name);
  const others = [...new Set(operations.flatMap(({ operation }) => operation.tags || ["other"]))].filter((name) => !known.includes(name));
  const index = document.getElementById("index");
  const main = document.getElementById("main");
  main.replaceChildren(prose(api.info.description));
  for (const name of [...known, ...others]) {
    const own = operations.filter(({ operation }) => (operation.tags || ["other"]).includes(name));
    if (!own.length) continue;
    const tag = (api.tags || []).find((each) => each.name === name);
    main.append(make("section", {}, make("h2", {}, name), prose(tag && tag.description), own.map(operationElement)));
    index.append(make("div", { class: "group" }, make("h2", {}, name), own.map(({ path, method, operation }) =>
      make("a", { href: `#${operation.operationId}`, "data-text": `${operation.operationId} ${path} ${operation.summary}`.toLowerCase() },
        make("span", { class: `method ${method}` }, method.toUpperCase()), (operation.operationId || path).split("_").slice(1).join(" ") || path))));
  }
  openTarget();
}

function openTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target) { target.open = true; target.scrollIntoView(); }
}

function filter(words) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  for (const group of document.querySelectorAll("#index .group")) {
    let any = false;
    for (const link of group.querySelectorAll("a")) {
      link.hidden = !wanted.every((word) => link.dataset.text.includes(word));
      any = any || !link.hidden;
    }
    group.hidden = !any;
  }
}

addEventListener("hashchange", openTarget);
addEventListener("keydown", (event) => {
  if (event.key === "/" && !/INPUT|TEXTAREA|SELECT/.test(event.target.tagName)) { event.preventDefault(); document.getElementById("search").focus(); }
});
document.getElementById("search").addEventListener("input", (event) => filter(event.target.value));
const token = document.getElementById("token");
token.value = sessionStorage.getItem("token") || "";
token.addEventListener("input", () => sessionStorage.setItem("token", token.value));
fetch("openapi.json")
  .then((response) => { if (!response.ok) throw new Error(`${response.status} ${response.statusText}`); return response.json(); })
  .then((found) => { api = found; show(); })
  .catch((error) => document.getElementById("main").replaceChildren(make("p", { class: "required" }, `openapi.json could not be read: ${error.message}`)));
