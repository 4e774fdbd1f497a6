// The Go client: sandboxes without templates, commands, files, errors. LANGSMITH_ENDPOINT is a
// sandboxd with an API key. INTEROP_FULL is one with the same key and no room for another sandbox.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/langchain-ai/langsmith-go"
	"github.com/langchain-ai/langsmith-go/option"
)

const (
	killed = 137              // the exit code
	limit  = 60 * time.Second // for one scenario
)

// Shorter names for what all scenarios use.
type (
	start     = langsmith.SandboxCommandStartParams
	result    = langsmith.SandboxExecutionResult
	reconnect = langsmith.SandboxCommandReconnectParams
)

// A failed check ends its scenario.
type failure string

func fail(format string, values ...any) { panic(failure(fmt.Sprintf(format, values...))) }

func equal(found, wanted any) {
	if !reflect.DeepEqual(found, wanted) {
		fail("%#v, not %#v", found, wanted)
	}
}

// good gives the value of a call that must succeed.
func good[T any](value T, err error) T {
	succeed(err)
	return value
}

func succeed(err error) {
	if err != nil {
		fail("%T: %v", err, err)
	}
}

// raised gives the error of this type, which the call must have returned.
func raised[T error](err error, text string) T {
	var wanted T
	if !errors.As(err, &wanted) || !strings.Contains(err.Error(), text) {
		fail("%T: %v", err, err)
	}
	return wanted
}

// refused expects an answer of this status.
func refused(err error, status int, text string) {
	equal(raised[*langsmith.Error](err, text).StatusCode, status)
}

type test struct {
	context.Context
	boxes *langsmith.SandboxBoxService
	made  []string
}

func connect(options ...option.RequestOption) *langsmith.SandboxBoxService {
	options = append([]option.RequestOption{option.WithMaxRetries(0)}, options...)
	return langsmith.NewClient(options...).Sandboxes.Boxes
}

// sandbox makes one that is deleted at the end, if the scenario has not done so.
func (t *test) sandbox(params langsmith.SandboxBoxNewParams) *langsmith.Sandbox {
	box := good(t.boxes.NewSandbox(t, params))
	t.made = append(t.made, box.Name)
	return box
}

func (t *test) plain() *langsmith.Sandbox { return t.sandbox(langsmith.SandboxBoxNewParams{}) }

func (t *test) started(box *langsmith.Sandbox, command string) *langsmith.SandboxCommandHandle {
	return good(box.StartCommand(t, start{Command: langsmith.F(command)}))
}

// next gives the next chunk of either stream.
func (t *test) next(handle *langsmith.SandboxCommandHandle) langsmith.SandboxOutputChunk {
	chunk, ok, err := handle.Next(t)
	succeed(err)
	equal(ok, true)
	return chunk
}

func fresh() string { return fmt.Sprintf("box-%x", time.Now().UnixNano()) }

var scenarios = []struct {
	name string
	play func(*test)
}{
	{"sandboxes are made, found, listed, renamed and deleted", func(t *test) {
		name, other := fresh()+" ä", fresh()
		made := t.sandbox(langsmith.SandboxBoxNewParams{Name: langsmith.F(name)})
		equal([]string{made.Name, made.Status, made.StatusMessage}, []string{name, "ready", ""})
		equal(made.ID != "" && made.CreatedAt != "" && made.UpdatedAt != "", true)
		equal(good(t.boxes.GetSandbox(t, made.Name)).ID, made.ID)
		listed := false
		for _, box := range good(t.boxes.ListSandboxes(t, langsmith.SandboxBoxListParams{})) {
			listed = listed || box.ID == made.ID
		}
		equal(listed, true)
		succeed(made.Update(t, langsmith.SandboxBoxUpdateParams{Name: langsmith.F(other)}))
		equal(made.Name, other)
		succeed(made.Refresh(t))
		_, err := t.boxes.GetSandbox(t, name)
		refused(err, 404, name)
		succeed(made.Delete(t))
		refused(made.Delete(t), 404, other)
		_, err = t.boxes.GetStatus(t, other)
		refused(err, 404, other)
	}},

	{"the status is told until a sandbox is ready", func(t *test) {
		box := t.plain()
		params := langsmith.SandboxWaitParams{Timeout: 20 * time.Second, PollInterval: 50e6}
		ready := good(t.boxes.WaitSandbox(t, box.Name, params))
		equal([]string{ready.ID, ready.Status}, []string{box.ID, "ready"})
	}},

	{"names are taken only once", func(t *test) {
		first, second := t.plain(), t.plain()
		_, err := t.boxes.New(t, langsmith.SandboxBoxNewParams{Name: langsmith.F(first.Name)})
		refused(err, 409, first.Name)
		err = second.Update(t, langsmith.SandboxBoxUpdateParams{Name: langsmith.F(first.Name)})
		refused(err, 409, first.Name)
	}},

	{"Run gives stdout, stderr and the exit code, over HTTP", func(t *test) {
		box := t.plain()
		params := langsmith.SandboxBoxRunParams{
			Command: langsmith.F("echo \"$A|$PWD|$0\"; echo err >&2; exit 3"),
			Env:     langsmith.F(map[string]string{"A": "x=ä ☃"}),
			CWD:     langsmith.F("/tmp"),
			Shell:   langsmith.F("/bin/sh"),
			Timeout: langsmith.F(int64(10)),
		}
		equal(*good(box.Run(t, params)), result{"x=ä ☃|/tmp|/bin/sh\n", "err\n", 3})
	}},

	{"callbacks get the output as it comes", func(t *test) {
		var out, err []string
		ended := good(t.plain().RunWithCallbacks(t, start{
			Command: langsmith.F("echo $A; sleep 0.4; echo E >&2; sleep 0.4; pwd"),
			Env:     langsmith.F(map[string]string{"A": "1"}),
			CWD:     langsmith.F("/tmp"),
		}, langsmith.SandboxCommandCallbacks{
			OnStdout: func(text string) { out = append(out, text) },
			OnStderr: func(text string) { err = append(err, text) },
		}))
		equal([][]string{out, err}, [][]string{{"1\n", "/tmp\n"}, {"E\n"}})
		equal(*ended, result{"1\n/tmp\n", "E\n", 0})
	}},

	{"much output arrives whole", func(t *test) {
		command := "for i in $(seq 100000); do echo \"ä☃𝄞 $i\"; done"
		var wanted strings.Builder
		for i := 1; i <= 100000; i++ {
			fmt.Fprintf(&wanted, "ä☃𝄞 %d\n", i)
		}
		equal(good(t.started(t.plain(), command).Result(t)).Stdout == wanted.String(), true)
	}},

	{"a command that takes too long is a command time-out", func(t *test) {
		params := start{Command: langsmith.F("sleep 20"), TimeoutSeconds: langsmith.F(int64(1))}
		_, err := good(t.plain().StartCommand(t, params)).Result(t)
		raised[*langsmith.SandboxCommandTimeoutError](err, "timed out")
	}},

	{"a handle yields chunks with offsets in bytes", func(t *test) {
		handle := t.started(t.plain(), "printf aä; sleep 0.4; printf ☃ >&2; sleep 0.4; printf b; exit 4")
		equal(handle.CommandID != "" && handle.PID > 0, true)
		for _, wanted := range []langsmith.SandboxOutputChunk{
			{Stream: "stdout", Data: "aä", Offset: 0},
			{Stream: "stderr", Data: "☃", Offset: 0},
			{Stream: "stdout", Data: "b", Offset: 3},
		} {
			equal(t.next(handle), wanted)
		}
		equal(*good(handle.Result(t)), result{"aäb", "☃", 4})
		equal([]int64{handle.LastStdoutOffset(), handle.LastStderrOffset()}, []int64{4, 3})
	}},

	{"input reaches the command", func(t *test) {
		handle := t.started(t.plain(), "echo ready; read -r a; read -r b; echo \"<$a|$b>\"")
		equal(t.next(handle).Data, "ready\n")
		succeed(handle.SendInput("one ä\nt"))
		succeed(handle.SendInput("wo\n"))
		equal(*good(handle.Result(t)), result{"ready\n<one ä|two>\n", "", 0})
	}},

	{"kill ends the command and all that it started", func(t *test) {
		box := t.plain()
		handle := t.started(box, "sleep 1000 & echo $!; wait")
		child := t.next(handle).Data
		succeed(handle.Kill())
		equal(good(handle.Result(t)).ExitCode, int64(killed))
		looking := good(t.started(box, "cat /proc/"+strings.TrimSpace(child)+"/status").Result(t))
		equal(looking.Success(), false)
	}},

	{"a command is reattached by its id, from any offset, while it runs and when it is over",
		func(t *test) {
			box := t.plain()
			first := t.started(box, "echo e >&2; sleep 0.2; echo ä; sleep 0.5; echo two; exit 3")
			for t.next(first).Stream != "stdout" {
				continue
			}
			succeed(first.Close())
			offsets := reconnect{
				StdoutOffset: langsmith.F(int64(3)),
				StderrOffset: langsmith.F(int64(2)),
			}
			running := good(box.ReconnectCommand(t, first.CommandID, offsets))
			equal(*good(running.Result(t)), result{"two\n", "", 3})
			over := good(box.ReconnectCommand(t, first.CommandID, reconnect{}))
			equal(*good(over.Result(t)), result{"ä\ntwo\n", "e\n", 3})
			equal(good(good(running.Reconnect(t)).Result(t)).Stdout, "")
			unknown := good(box.ReconnectCommand(t, "no-such-command", reconnect{}))
			_, err := unknown.Result(t)
			lost := raised[*langsmith.SandboxOperationError](err, "no-such-command")
			equal(lost.ErrorType, "CommandNotFound")
		}},

	{"without clients a command lives as long as it was told", func(t *test) {
		box := t.plain()
		leave := func(params start) string {
			params.Command = langsmith.F("echo up; sleep 2.5; echo late")
			handle := good(box.StartCommand(t, params))
			t.next(handle)
			succeed(handle.Close())
			return handle.CommandID
		}
		ended := func(id string) result {
			return *good(good(box.ReconnectCommand(t, id, reconnect{})).Result(t))
		}
		idle := leave(start{IdleTimeoutSeconds: langsmith.F(int64(1))})
		gone := leave(start{KillOnDisconnect: langsmith.F(true)})
		free := leave(start{
			IdleTimeoutSeconds: langsmith.F(int64(-1)),
			TTLSeconds:         langsmith.F(int64(-1)),
		})
		equal(ended(gone), result{"up\n", "", killed})
		equal(ended(free), result{"up\nlate\n", "", 0})
		equal(ended(idle), result{"up\n", "", killed})
	}},

	{"a command that is over is remembered as long as it was told", func(t *test) {
		box := t.plain()
		params := start{Command: langsmith.F("true"), TTLSeconds: langsmith.F(int64(1))}
		handle := good(box.StartCommand(t, params))
		good(handle.Result(t))
		time.Sleep(1600 * time.Millisecond)
		_, err := good(box.ReconnectCommand(t, handle.CommandID, reconnect{})).Result(t)
		equal(raised[*langsmith.SandboxOperationError](err, "").ErrorType, "SessionExpired")
	}},

	{"files are written and read, wherever they are", func(t *test) {
		box := t.plain()
		binary := make([]byte, 2<<20)
		for i := range binary {
			binary[i] = byte(i)
		}
		for path, content := range map[string][]byte{
			"/tmp/a/new/dir/text":     []byte("grüße ☃\n"),
			"relative.bin":            binary,
			"/tmp/a b+c&d=ä?#%41.txt": []byte("odd"),
			"/tmp/empty":              {},
		} {
			succeed(box.WriteFile(t, path, content))
			equal(bytes.Equal(good(box.ReadFile(t, path)), content), true)
		}
		equal(len(good(box.ReadFile(t, "/home/user/relative.bin"))), len(binary))
		_, err := box.ReadFile(t, "/tmp/missing")
		refused(err, 404, "/tmp/missing")
	}},

	{"a wrong key is refused", func(t *test) {
		wrong := connect(option.WithAPIKey("wrong"))
		_, err := wrong.ListSandboxes(t, langsmith.SandboxBoxListParams{})
		refused(err, 401, "")
		url := t.plain().DataplaneURL
		_, err = wrong.ReadFileWithDataplaneURL(t, url, "/etc/passwd")
		refused(err, 401, "")
		_, err = wrong.StartCommandWithDataplaneURL(t, url, start{Command: langsmith.F("true")})
		raised[*langsmith.SandboxConnectionError](err, "")
	}},

	{"one sandbox too many is a matter of quota", func(t *test) {
		full := connect(option.WithBaseURL(os.Getenv("INTEROP_FULL")))
		_, err := full.New(t, langsmith.SandboxBoxNewParams{})
		refused(err, 429, "limit")
	}},

	{"a snapshot that does not exist is not found", func(t *test) {
		params := langsmith.SandboxBoxNewParams{SnapshotName: langsmith.F("nothing")}
		_, err := t.boxes.New(t, params)
		refused(err, 404, "nothing")
	}},
}

// run plays one scenario; what it returns is empty, or what failed.
func run(play func(*test)) (problem string) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	t := &test{Context: ctx, boxes: connect()}
	defer func() {
		for _, name := range t.made {
			_ = t.boxes.Delete(context.Background(), name)
		}
		if reason := recover(); reason != nil {
			problem = fmt.Sprint(reason)
		}
	}()
	play(t)
	return ""
}

func main() {
	fmt.Printf("1..%d\n", len(scenarios))
	var wait sync.WaitGroup
	var mutex sync.Mutex
	status := 0
	turns := make(chan struct{}, 4) // so many at a time
	for i, scenario := range scenarios {
		turns <- struct{}{}
		wait.Add(1)
		go func(number int, name string, play func(*test)) {
			defer wait.Done()
			problem := run(play)
			<-turns
			mutex.Lock()
			defer mutex.Unlock()
			if problem == "" {
				fmt.Printf("ok %d - %s\n", number, name)
				return
			}
			status = 1
			fmt.Printf("not ok %d - %s\n# %s\n", number, name, strings.ReplaceAll(problem, "\n", "\n# "))
		}(i+1, scenario.name, scenario.play)
	}
	wait.Wait()
	os.Exit(status)
}
