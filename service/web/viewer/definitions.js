// What the counts of a report mean, as the service says it.

import { get } from "./api.js";

let loading = null;

/** The service's definitions; asked for once. */
export function loadDefinitions() {
  loading ??= get("v1/definitions").catch((problem) => {
    loading = null; // the next one asks again
    throw problem;
  });
  return loading;
}

/** The definition that a report's count was made by. One that the service does not know any more has only its id. */
export function definitionOf(known, { definition, table_version: version }) {
  const found = known?.definitions.find((each) => each.id === definition && each.table_version === version);
  return found ?? { id: definition, title: definition, summary: "", classes: [] };
}
