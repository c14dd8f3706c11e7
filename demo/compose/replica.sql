-- Run once by the replica's image. pgslice makes the tables.
CREATE DATABASE from_web;
