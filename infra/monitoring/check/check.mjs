// Runs Microsoft's Kusto language service over the queries, against the tables as Microsoft documents them (tables.json).
// Any diagnostic fails. What the dynamic fields of a record are called it cannot see: tests/it/records.rs does.
import { readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(import.meta.url);
// The language service is C# compiled to JavaScript; its runtime must be there first, and both put themselves into `globalThis`.
require('@kusto/language-service-next/bridge.min');
require('@kusto/language-service-next');
const { GlobalState, KustoCode } = globalThis.Kusto.Language;
const { DatabaseSymbol, TableSymbol } = globalThis.Kusto.Language.Symbols;

const here = import.meta.dirname;
const tables = Object.entries(JSON.parse(readFileSync(join(here, 'tables.json'), 'utf8')));
const symbols = tables.map(([name, { columns }]) => TableSymbol.From(`(${columns})`).WithName(name));
const globals = GlobalState.Default.WithDatabase(new DatabaseSymbol.$ctor1('workspace', symbols));

/** What the language service finds wrong with a query: texts with their line. */
function findings(query) {
  const diagnostics = KustoCode.ParseAndAnalyze(query, globals).GetDiagnostics();
  return Array.from({ length: diagnostics.Count }, (_, index) => {
    const diagnostic = diagnostics.getItem(index);
    const line = query.slice(0, diagnostic.Start).split('\n').length;
    return `line ${line}: ${diagnostic.Code} ${diagnostic.Message}`;
  });
}

/** The check itself is checked: each of these must be found, with this word in the finding. */
const wrong = [
  ['a misspelt column', 'AppTraces | where Mesage has "x"', 'Mesage'],
  ['a misspelt function', 'AppTraces | extend record = parse_jsn(Message)', 'parse_jsn'],
  ['a misspelt table', 'AppTrace | count', 'AppTrace'],
  ['a column that was summarised away', 'AppTraces | summarize count() by Message | where ItemCount > 1', 'ItemCount'],
  ['a wrong operator', 'AppTraces | were Message has "x"', 'Query operator expected'],
  ['a wrong type', 'AppTraces | where TimeGenerated > "yesterday" + 1', 'line 1'],
];
let failed = 0;
for (const [what, query, word] of wrong) {
  if (!findings(query).some((finding) => finding.includes(word))) {
    console.error(`self-check: ${what} was not found: ${query}\n  ${findings(query).join('\n  ')}`);
    failed += 1;
  }
}

const folder = process.env.QUERIES ?? join(here, '..', 'queries');
const files = readdirSync(folder).filter((name) => name.endsWith('.kql'));
for (const name of files) {
  const query = readFileSync(join(folder, name), 'utf8');
  const found = findings(query);
  if (!query.startsWith('// ')) found.push('line 1: the query does not begin with the question that it answers');
  for (const finding of found) console.error(`${name}: ${finding}`);
  failed += found.length;
}
if (files.length === 0) failed += 1;
console.log(`${files.length} queries and ${wrong.length} known mistakes checked, ${failed} findings`);
process.exit(failed === 0 ? 0 : 1);
