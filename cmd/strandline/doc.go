// Command strandline is the Strandline server and its tools: it wires the
// engine, the query engine and the HTTP server, a file per subcommand. It is
// the only place that reads flags, and only main exits the process.
package main
