"""From a command line to a checked configuration: any mistake is one clear line before work begins."""
