// Package reload runs generations of a daemon on sockets that outlive them: it
// starts a candidate, waits until it is ready, lets the kernel send new connections
// to it, and ends the old generation when nothing is on its way to it any more.
//
// # Life of a generation
//
//	starting ──ready──▶ (canary) ──▶ live ──superseded──▶ (probation) ──▶ draining ──▶ gone
//	    │                  │          │ ▲                      │             │
//	    └──▶ failed        │          │ └────── way back ──────┴─────────────┘ until it is told to stop
//	                       │          └──crashed──▶ gone; its listeners go to the replacement
//	                       └──rejected──▶ draining
//
// A candidate has listeners of its own and no traffic; one that fails leaves its
// log and the reason. At the switch every endpoint is steered to the candidate's
// listeners. The old generation is told to stop once it has settled
// ([handoff.Settler]), exactly once; a daemon that may drop what it has then has its
// connections finished first, counted from outside (manners.go, remnant.go). What is left
// after its time is killed, with all processes that are its (package spawn tells which).
// A listener is closed when the processes of its generation are gone. Should clients
// wait in it even then, they are handed to the live generation and counted; the count is
// 0 unless a daemon died before it had settled.
//
// While nobody is live, the clients wait in the reserve, a listener that belongs to
// the next generation: that of a live generation that crashed, or one made when the
// service was stopped.
//
// # Daemons that bind by themselves
//
// With delivery bind (auto is that too, for a daemon that leaves what it was given
// untouched) the daemon's bind(2) and listen(2) wait for an answer of ours (package
// handoff/bind). Another goroutine reads the calls, the owner decides about them
// (bind_judge.go, bind_match.go):
//
//	bind of what is none of ours      goes on untouched: UDP, port 0, other namespaces
//	bind of an endpoint's address     keep: a duplicate of the socket is bound in its
//	                                  stead, and stays with us until it listens
//	the same, where clients wait in   replace: that listener is put in the place of the
//	a listener that is for it         daemon's socket, with what it has set on its own
//	bind of another key than live's   refused: the kernel can't steer between two keys
//	listen on a socket that we know   it joins the endpoint's group, at a place that gets
//	                                  no traffic, and this is a sign of readiness
//	listen elsewhere                  goes on, and is told if that is all that it does
//
// A named endpoint is never reached at more addresses than both the spec and the daemon
// ask for; so it may change its key (from all addresses to IPv4 alone, say) while nobody
// is live, and what clients wait in at the old key stays until somebody is. Without a
// spec, addresses are found: such an endpoint lives as long as a generation that serves
// has something there.
//
// A daemon that listens before it can serve is told from others by how it shows that it is
// ready (bind_early.go): clients stay where they wait until then, and are relayed. One that
// closes what it has bound and binds it again gets it again (bind_again.go).
//
// Our duplicate keeps a socket listening that the daemon has closed or died with. So what
// no process of it has open any more is looked for when another bind comes and when a
// worker ends, and leaves the group, with its clients relayed. The last one at an address
// stays, for the next generation. If the holder dies, binds fail with ENOSYS, and what is
// bound serves on.
//
// # Canary, pause, replace
//
// A canary is a candidate that is ready and gets a share of the new connections while
// live has the rest. It is watched; one that ends or fails its check is rejected and
// drains, and who asked for it hears of it when all is decided. If live crashes beside a
// canary, that has everything at once.
//
// In a pause everybody waits in the reserve, whoever is live: a generation that starts
// then has listeners of its own. At the end the kernel can't move those who waited, so
// they are relayed to live, and counted apart.
//
// With strategy replace the candidate's listeners hold the clients while live settles
// and ends, and its process is started when no other process of the daemon is left
// (see replace.go). Where listeners are shared nobody can be given a part of the
// traffic: there is no canary and no pause then.
//
// What a plan is made of, which is all this, stands in one place: direct.go.
//
// # Ways back
//
// Until the old generation is told to stop, it listens and serves what it has, and
// going back is to steer to it again. Probation keeps it so for a while, and goes
// back by itself if the new one dies. Later a new generation is made of the old one's
// recipe and program: the shim opens the file that it is about to run and sends it to
// the holder, which keeps it open for generations that run, for the one that was live
// before, and for one that was gone back to, whose replacements after a crash must
// run it too. What is run is checked to be that very file, at its path or from what
// was kept.
//
// # Who owns what
//
// One goroutine, that of [Service.Run], owns a service: its state, endpoints,
// listeners and rollouts. Everybody else, the service's own helpers included, sends
// it functions through the inbox and gets answers by channels; there is no lock.
// Helpers (waiting for readiness, for settling, for a process) run in goroutines
// that end with the service's context, and Run waits for all of them.
//
// If the holder dies the daemons serve on: they have duplicates of their listeners,
// and what they write goes into pipes that stay open. If a daemon dies the holder
// has the listeners. All that would have to survive the holder is data in
// [state.Service].
package reload
