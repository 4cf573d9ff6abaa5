# What developers and CI run. `make help` lists the targets.
GO          ?= go
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2
BENCHTIME   ?= 1s
# A number, not a time: with a time Go 1.26 fails now and then without a fault (golang/go 75804).
FUZZTIME    ?= 100000x
# Packages with tests that GAPLESS_LONG=1 makes longer.
LONG        = ./handoff ./reload ./cmd/gapless ./bench/headline

.PHONY: build test check lint bench demo fuzz help

build: ## the command, into ./gapless
	CGO_ENABLED=0 $(GO) build -trimpath -o gapless ./cmd/gapless

test: ## all tests but the long ones, with the race detector (under 5 minutes)
	$(GO) test -race -p 4 -timeout 10m $$($(GO) list ./... | grep -v -e /bench/headline -e /cmd/gapless/systemd) # most of it is waiting
	$(GO) test -race -count=1 -parallel 4 -p 1 -timeout 10m ./bench/headline ./cmd/gapless/systemd # they build what they test, which the cache does not see

check: lint ## lint, the other system, and the long tests
	GOOS=darwin $(GO) build ./... && GOOS=darwin $(GO) vet ./...
	GAPLESS_LONG=1 $(GO) test -race -count=1 -timeout 30m -skip TestServiceAgainstAModel $(LONG)
	GAPLESS_LONG=1 $(GO) test -count=1 -timeout 30m -run TestServiceAgainstAModel ./reload # 100,000 sequences, others with GAPLESS_SEED=0; make test has the race detector for it

lint: ## gofmt, go vet, staticcheck, a tidy go.mod
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w on these"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) mod tidy -diff

bench: ## the figures that the README quotes
	$(GO) test -run '^$$' -bench . -benchtime $(BENCHTIME) -timeout 20m ./handoff/ ./handoff/bind/ ./handoff/conns/ ./bench/ ./bench/speed/

demo: ## a server under load, restarted plainly and reloaded by gapless, side by side
	@$(GO) run ./bench/demo

fuzz: ## each parser for a while
	@for target in $$(grep -rl '^func Fuzz' --include='*_test.go' .); do \
	  for name in $$(sed -n 's/^func \(Fuzz[A-Za-z]*\).*/\1/p' $$target); do \
	    echo "$$name in $$(dirname $$target)"; \
	    $(GO) test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) ./$$(dirname $$target) || exit 1; \
	  done; \
	done

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST)
