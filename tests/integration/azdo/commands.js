'use strict';
// Every logging command of real runs, read by azure-pipelines-task-lib's own reader and by the rules of the agent's reader
// (Microsoft.VisualStudio.Services.Agent: Command.cs, CommandStringConvertor.cs), must give back what the pipeline said.
// usage: node commands.js MLHOST NODE_MODULES
//
// The two readers differ, and the host's text suits both:
// - both take %AZP25 for a percent sign, the library since 2.x as the last of its replacements; %25 is nothing to either.
// - in data the library decodes %0D %0A %AZP25 only, the agent %3B and %5D as well: the host escapes what both read.
// - the library trims a property, the agent does not: blanks at the end of a value get lost in the library's reader alone.
// - the library takes the first '[' and ']' of the line, the agent those after "##vso": a command stands at the start of a line.
const fs = require('fs');
const os = require('os');
const path = require('path');
const { spawnSync } = require('child_process');

const [mlhost, modules] = process.argv.slice(2);
const library = require(path.join(modules, 'azure-pipelines-task-lib/taskcommand'));

let passed = 0;
let failed = 0;

function short(value) {
  const text = JSON.stringify(value);
  return text && text.length > 400 ? text.slice(0, 400) + '...' : text;
}

function check(name, good, why) {
  if (good) {
    passed++;
    return;
  }
  failed++;
  console.log(`not ok ${name}: ${why || ''}`);
}

function same(name, have, want) {
  check(name, JSON.stringify(have) === JSON.stringify(want), `${short(have)}, not ${short(want)}`);
}

// The agent's reader. It decodes %AZP25 last, so that an escaped percent sign begins no other escape.
function agentText(text) {
  return text.replace(/%3B/g, ';').replace(/%0D/g, '\r').replace(/%0A/g, '\n').replace(/%5D/g, ']').replace(/%AZP25/g, '%');
}

function agentCommand(line) {
  const start = line.indexOf('##vso[');
  const end = line.indexOf(']', start);
  if (start < 0 || end < 0) return null;
  const info = line.slice(start + 6, end);
  const space = info.indexOf(' ');
  const command = space < 0 ? info : info.slice(0, space);
  const properties = {};
  for (const part of space < 0 ? [] : info.slice(space + 1).split(';')) {
    const at = part.indexOf('=');
    if (at > 0 && at + 1 < part.length) properties[part.slice(0, at)] = agentText(part.slice(at + 1));
  }
  return { command, properties, message: agentText(line.slice(end + 1)) };
}

function trimmed(properties) {
  return Object.fromEntries(Object.entries(properties).map(([name, value]) => [name, value.trimEnd()]));
}

// The commands of a log, each read twice.
function commands(name, text) {
  const found = [];
  for (const line of text.split('\n')) {
    if (!/##vso/i.test(line)) continue;
    check(`${name}: at the start of its line`, line.startsWith('##vso['), short(line));
    const agent = agentCommand(line);
    let read;
    try {
      read = library.commandFromString(line);
    } catch (problem) {
      check(`${name}: the library reads it`, false, `${problem.message}: ${short(line)}`);
      continue;
    }
    check(`${name}: the agent reads it`, agent !== null, short(line));
    same(`${name}: the command`, agent.command, read.command);
    same(`${name}: the properties`, trimmed(agent.properties), trimmed(read.properties));
    same(`${name}: the data`, agent.message, read.message);
    found.push(agent);
  }
  return found;
}

const HOSTILE = [
  ['percent', '100% %25 %0A %3B %5D %AZP25 %%AZP25'],
  ['semicolon', ';a=b;result=Succeeded;'],
  ['bracket', '] [ ]] ##vso[task.complete result=Failed;]done'],
  ['lines', 'one\r\ntwo\nthree\rfour\n'],
  ['wide', 'Größe 模型 🚀 ́é'],
  ['blanks', '  in the middle  of  '],
  ['command', '##vso[task.setvariable variable=PATH;]/evil'],
  ['json', '{"a": [1, "]"], "b": "##VSO[task.complete result=Failed;]"}'],
  ['long', 'Ω%;]\n'.repeat(64 * 1024 / 6)],
  ['empty', ''],
];
const LINES = [
  '##vso[task.complete result=Succeeded;]all is well',
  'in the middle ##vso[task.setvariable variable=PATH;]/evil',
  '##VSO[task.setvariable variable=PATH;]/evil',
  '\u001b[31m##v\u001b[0mso[task.complete result=Failed;]',
  '##[group]a group that is none',
  '##[error]red',
  '::set-output name=a::b',
  'Größe 模型 % ; ]',
  '###vso[task.complete result=Failed;]',
  '\u00a0\u3000::set-env name=a::b',
  '\ufeff##vso[task.setvariable variable=PATH;]/evil',
  '#\u200b#vso[task.complete result=Failed;]',
  '##vso[task.logissue type=error;]] ##vso[task.complete result=Failed;]',
  '\u0000##vso[task.complete result=Failed;]',
  'x\r##vso[task.complete result=Failed;]',
  'x\u0085##vso[task.complete result=Failed;]\u2028##vso[task.complete result=Failed;]',
  '\u202e##vso[task.complete result=Failed;]',
  '\u001b]8;;##vso[task.complete result=Failed;]\u001b\\',
  '##vso['.repeat(2000),
];

function values(failure) {
  const variables = [];
  for (const [name, value] of HOSTILE) {
    variables.push({ name: `V_${name}`, value, output: false, secret: false });
    variables.push({ name: `O_${name}`, value, output: true, secret: false });
  }
  variables.push({ name: 'odd;name]=%25', value: 'odd', output: true, secret: false });
  variables.push({ name: 'SECRET_1', value: 'hush-%;]Ω-1', output: false, secret: true });
  variables.push({ name: 'SECRET_2', value: 'hush##vso[x]2', output: true, secret: true });
  const issues = [];
  for (const [name, value] of HOSTILE) {
    issues.push({ level: 'error', message: `E ${name} ${value}`, file: `src/${name} ;]%.lua`, line: 3, column: 9, rule: 'W1;]%' });
    issues.push({ level: 'warning', message: `W ${name} ${value}` });
  }
  return { variables, issues, lines: LINES, failure };
}

function variableOf(v) {
  const properties = { variable: v.name };
  if (v.output) properties.isOutput = 'true';
  if (v.secret) properties.issecret = 'true';
  return { command: 'task.setvariable', properties, message: v.value };
}

function issueOf(i) {
  const properties = { type: i.level };
  const place = { sourcepath: i.file, linenumber: String(i.line), columnnumber: String(i.column), code: i.rule };
  if (i.file) Object.assign(properties, place);
  return { command: 'task.logissue', properties, message: i.message };
}

function of(all, command) {
  return all.filter((c) => c.command === command);
}

// One run in a folder whose name needs escaping, too.
function run(name, failure, inner) {
  const folder = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'azdo-')), inner);
  fs.mkdirSync(folder);
  const given = values(failure);
  fs.copyFileSync(path.join(__dirname, 'commands.lua'), path.join(folder, 'commands.lua'));
  fs.writeFileSync(path.join(folder, 'mlhost.yaml'), '');
  fs.writeFileSync(path.join(folder, 'values.json'), JSON.stringify(given));
  fs.writeFileSync(path.join(folder, 'lines.txt'), LINES.join('\n') + '\n' + 'x'.repeat(65530) + LINES[0] + '\n');
  const done = spawnSync(mlhost, ['run', 'commands.lua', '--output', 'azdo'],
    { cwd: folder, encoding: 'utf8', maxBuffer: 1 << 28, timeout: 300000 });
  const all = commands(name, done.stdout);
  return { folder, given, done, all, close: () => fs.rmSync(path.dirname(folder), { recursive: true }) };
}

function verify(name, failure) {
  const r = run(name, failure, 'a;b] %25');
  const { given, all } = r;
  same(`${name}: exit`, r.done.status, failure ? 1 : 0);
  same(`${name}: variables`, of(all, 'task.setvariable'), given.variables.map(variableOf));
  const issues = of(all, 'task.logissue');
  same(`${name}: issues`, issues.slice(0, given.issues.length), given.issues.map(issueOf));
  const last = issues.slice(given.issues.length);
  same(`${name}: issues of failed stages`, last.length, failure ? 1 : 0);
  if (failure) {
    same(`${name}: the failed stage`, last[0].properties.type, 'error');
    check(`${name}: its message`, last[0].message.startsWith(`stage bad failed: ${failure}`), short(last[0].message));
  }
  const steps = of(all, 'task.setprogress').map((c) => Number(c.properties.value));
  same(`${name}: progress`, steps, [33, 66, 100]);
  const complete = all[all.length - 1];
  same(`${name}: the end`, complete, { command: 'task.complete', properties: { result: failure ? 'Failed' : 'SucceededWithIssues' },
    message: failure ? 'failed' : 'ok' });
  const summary = of(all, 'task.uploadsummary');
  same(`${name}: one summary`, summary.length, 1);
  check(`${name}: the summary is there`, path.isAbsolute(summary[0].message) && fs.existsSync(summary[0].message), short(summary));
  const results = of(all, 'results.publish');
  same(`${name}: one publication of results`, results.length, 1);
  const { resultFiles, ...rest } = results[0].properties;
  same(`${name}: how results are published`, rest,
    { type: 'JUnit', mergeResults: 'true', failTaskOnFailedTests: 'false', runTitle: 'commands' });
  same(`${name}: the results are beside the summary`, resultFiles, path.join(path.dirname(summary[0].message), 'junit.xml'));
  const xml = fs.readFileSync(resultFiles, 'utf8');
  check(`${name}: they hold the reports and the stages`, /name="a ##vso\[b\]"/.test(xml) && /name="beside"/.test(xml), short(xml));
  const known = ['task.setvariable', 'task.logissue', 'task.setprogress', 'task.uploadsummary', 'task.complete', 'results.publish'];
  same(`${name}: nothing else`, all.filter((c) => !known.includes(c.command)), []);
  // The value of a secret is in its own command and nowhere else.
  const outside = r.done.stdout.split('\n').filter((line) => !line.startsWith('##vso[task.setvariable')).join('\n') + r.done.stderr;
  for (const v of given.variables) {
    if (v.secret) check(`${name}: ${v.name} is masked`, !outside.includes(v.value), v.name);
  }
  // Groups do not nest, and nothing but the host begins a line with ##[.
  let open = false;
  for (const line of r.done.stdout.split('\n')) {
    if (line.startsWith('##[group]')) {
      check(`${name}: groups do not nest`, !open && /^##\[group\](values|beside|bad)$/.test(line), line);
      open = true;
    } else if (line.startsWith('##[endgroup]')) {
      check(`${name}: a group ends once`, open, line);
      open = false;
    } else {
      check(`${name}: ##[ is data`, !/##\[/.test(line.startsWith('##vso[') ? '' : line), short(line));
    }
  }
  check(`${name}: the last group has ended`, !open);
  // print, log twice, both streams of the command: each line was there, as data.
  const harmless = r.done.stdout.split('\n').filter((line) => line === LINES[0].replace('##', '**')).length;
  check(`${name}: what is printed is there as data`, harmless >= 4, `${harmless} times`);
  check(`${name}: a long line, too`, r.done.stdout.includes('x'.repeat(30000)), 'it is not there');
  r.close();
}

// The agent takes commas between files: it is told why there are no results.
function comma() {
  const r = run('comma', '', 'a,b');
  same('comma: no results', of(r.all, 'results.publish'), []);
  check('comma: a warning says so', of(r.all, 'task.logissue').some((c) => c.properties.type === 'warning'
    && c.message.includes('comma') && c.message.includes(path.join(r.folder, '.mlhost'))), short(r.all.slice(-3)));
  same('comma: the summary comes all the same', of(r.all, 'task.uploadsummary').length, 1);
  r.close();
}

function guarded(name, body) {
  try {
    body();
  } catch (problem) {
    check(name, false, problem.stack);
  }
}

guarded('ok', () => verify('ok', ''));
guarded('comma', comma);
guarded('failed', () => verify('failed', 'no data;]% ##vso[task.complete result=Succeeded;]\r\nsecond line Ω'));

console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
