module maplatency.dev/e2e/kind/peer

go 1.26.0
