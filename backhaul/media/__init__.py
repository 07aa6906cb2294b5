"""Files on their way out: registered by `put`, kept in the ledger `uploads`, sent by `transfer`."""
