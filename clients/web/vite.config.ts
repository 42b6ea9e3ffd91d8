import { defineConfig } from "vite";

// The built page is committed where the wheel takes it from: whoever installs Gorggle needs no Node.
export default defineConfig({
  base: "./",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "../python/gorggle_gateway/page",
    emptyOutDir: true,
    target: "es2022",
    // Nothing may become a data: address, which the content security policy forbids.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: {
      output: {
        entryFileNames: "assets/[name]-[hash].js",
        chunkFileNames: "assets/[name]-[hash].js",
        assetFileNames: "assets/[name]-[hash][extname]",
      },
    },
  },
  worker: { format: "es" },
  server: { proxy: { "/v1": { target: "http://127.0.0.1:8080", ws: true }, "/api": "http://127.0.0.1:8080", "/config.json": "http://127.0.0.1:8080" } },
});
