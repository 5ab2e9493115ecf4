// Search without a server: browsers start no Worker from a folder (file:), so its script runs in a hidden frame instead.
// Named as mkdocs-material looks for it; without this file it would fetch one from elsewhere.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      document.body.append(frame);
      const room = frame.contentWindow;
      room.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      room.importScripts = (...urls) => Promise.all(urls.map((one) => load(room, new URL(one, url).href)));
      this.room = room;
      this.ready = load(room, new URL(url, location.href).href);
    }

    postMessage(data) {
      this.ready.then(() => this.room.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.room.frameElement.remove();
    }
  };
}

function load(room, source) {
  return new Promise((done, failed) => {
    const script = room.document.createElement("script");
    script.src = source;
    script.onload = done;
    script.onerror = failed;
    room.document.body.append(script);
  });
}
