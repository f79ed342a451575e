// Reads a JSON list of objects of other projects and decodes each into its own Go type. A field that the type does not
// have, or of another type, is an error. The API server of the tests does not know these kinds.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	security "github.com/openshift/api/security/v1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
)

func main() {
	if err := check(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func check() error {
	var objects []json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&objects); err != nil {
		return err
	}
	for _, object := range objects {
		var kind struct{ APIVersion, Kind string }
		if err := json.Unmarshal(object, &kind); err != nil {
			return err
		}
		var into any
		switch kind.APIVersion + " " + kind.Kind {
		case "security.openshift.io/v1 SecurityContextConstraints":
			into = &security.SecurityContextConstraints{}
		case "monitoring.coreos.com/v1 PodMonitor":
			into = &monitoring.PodMonitor{}
		default:
			return fmt.Errorf("there is no type for %s %s", kind.APIVersion, kind.Kind)
		}
		decoder := json.NewDecoder(bytes.NewReader(object))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(into); err != nil {
			return fmt.Errorf("%s: %w", kind.Kind, err)
		}
		fmt.Println(kind.Kind)
	}
	return nil
}
