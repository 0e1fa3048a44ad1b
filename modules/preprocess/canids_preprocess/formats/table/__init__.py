"""Any table: `format: table`, whose mapping in the manifest says what each column means."""
